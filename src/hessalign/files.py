"""Files that are replaced whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_NAME = 200
"""Bytes of a file's name that its draft's name keeps: file systems allow 255."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside a file, to write to; it takes the file's place at once when the block has ended well.

    Every draft has a name of its own, so that two processes that replace one file do not write into each
    other's: the one that ends last wins.

    Args:
        path: Of the file, which may exist.

    Yields:
        Path of the draft.

    Raises:
        OSError: If the draft cannot be brought to disk; it names the file, and what was at the path then
            stays, and no draft does.
    """
    draft = path.with_name(f"{_draft_prefix(path.name)}{secrets.token_hex(6)}.draft")
    try:
        yield draft
        flush(draft)
        draft.replace(path)
    except OSError as error:
        of_draft = error.filename is None or str(error.filename) == str(draft)
        if error.errno is None or not of_draft:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            draft.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by another at once; text is written as UTF-8."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


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


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left of files that they were replacing in a folder.

    Only for whoever holds the folder's lock: a draft may be another process's work.
    """
    for draft in folder.glob(".*.draft"):
        if draft.is_file():
            draft.unlink(missing_ok=True)


def _draft_prefix(name: str) -> str:
    # Bytes that are no UTF-8 have their place in names, so cut as the system sees them.
    return os.fsdecode(b"." + os.fsencode(name)[:LONGEST_NAME] + b".")
