"""Files that are replaced whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside a file, to write to; it takes the file's place at once when the block has ended well.

    Args:
        path: Of the file, which may exist.

    Raises:
        OSError: If the draft cannot be brought to disk; what was at the path then stays, and no draft does.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file by another at once."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can be printed: bytes of a file's name that are not UTF-8 become ``\xff``."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which no file system gives
        return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def flush(path: Path) -> None:
    """Bring a file's content to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
