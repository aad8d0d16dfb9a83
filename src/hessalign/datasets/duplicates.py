"""Images that a dataset holds more than once."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hessalign.files import shown


@dataclass(frozen=True)
class FoundFile:
    """A file of a dataset.

    Attributes:
        path: Of the file.
        domain: Its domain's name.
        class_name: Its class.
    """

    path: str
    domain: str
    class_name: str


class EqualFiles:
    """Finds files of equal content among some, by SHA-256 of those whose size is not theirs alone.

    Args:
        paths: The files; one that cannot be found is left out.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        sizes = {path: size for path in paths if (size := _size(path)) is not None}
        counts = Counter(sizes[path] for path in paths if path in sizes)
        self._candidates = {path for path, size in sizes.items() if counts[size] > 1}
        self._by_digest: dict[bytes, list[FoundFile]] = {}

    def add(self, file: FoundFile) -> None:
        """Read a file, if another has its size."""
        if file.path not in self._candidates:
            return
        try:
            with open(file.path, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError:
            return  # that it cannot be read is told elsewhere
        self._by_digest.setdefault(digest, []).append(file)

    def groups(self) -> list[list[FoundFile]]:
        """Files of equal content, of what was added."""
        return [files for files in self._by_digest.values() if len(files) > 1]


def read_duplicates(path: Path, domain_names: Iterable[str]) -> list[PurePosixPath]:
    """The images that a list names for removal, one ``domain/class/image`` in each line.

    Args:
        path: The list, UTF-8.
        domain_names: Of the dataset.

    Raises:
        ValueError: If it is no such list; the message names the first bad line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"duplicates: {shown(path)} cannot be read as text ({error})") from None
    allowed = set(domain_names)
    names = []
    for number, line in enumerate(lines, start=1):
        name = PurePosixPath(line.strip())
        if not line.strip():
            continue
        if len(name.parts) != 3 or name.parts[0] not in allowed or ".." in name.parts:
            raise ValueError(
                f"duplicates: {path}, line {number}: {line.strip()!r} is not domain/class/image of a domain "
                f"among {', '.join(sorted(allowed))}"
            )
        names.append(name)
    return names


def remove_duplicates(folder: Path, names: Iterable[PurePosixPath]) -> int:
    """Delete the named images from a dataset's folder; those that are not there are passed over.

    Returns:
        How many were deleted.
    """
    removed = 0
    for name in names:
        path = folder / name
        if path.is_file():
            path.unlink()
            removed += 1
    return removed


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
