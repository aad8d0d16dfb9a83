"""Published archives: where they lie, how to know them again, and how to extract what nobody vouches for."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast
from urllib.parse import parse_qs, urlsplit
from zipfile import ZipFile, ZipInfo

from hessalign.files import shown

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are done and of how many, None where nobody knows."""


@dataclass(frozen=True)
class Checksum:
    """What others have found an archive's hash to be.

    MD5, and hashes of which only the first digits are known, notice damage, not a forger.

    Attributes:
        algorithm: Name of the hash in hashlib.
        digits: Hexadecimal, lower case; the whole hash or its beginning.
        reported_by: Who published it.
    """

    algorithm: Literal["md5", "sha256", "sha512"]
    digits: str
    reported_by: str


@dataclass(frozen=True)
class Source:
    """One published archive.

    Attributes:
        name: Name of the archive here, without its ending.
        archive: Kind of archive, which is also the ending of its name here.
        url: Address of the archive itself, not of a page about it.
        bytes: Its size; None where unknown.
        checksum: None where nobody published one.
    """

    name: str
    archive: Literal["zip", "tar.gz"]
    url: str
    bytes: int | None = None
    checksum: Checksum | None = None

    @property
    def file_name(self) -> str:
        """Name of the archive here."""
        return f"{self.name}.{self.archive}"


def google_drive(file_id: str) -> str:
    """URL of a file on Google Drive, of any size: the one behind the button of the page that asks twice."""
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


def google_drive_link(url: str) -> str:
    """The URL of the file itself, if a URL is a link to a file on Google Drive; else the URL as it is."""
    parts = urlsplit(url)
    if parts.hostname not in ("drive.google.com", "docs.google.com"):
        return url
    ids = parse_qs(parts.query).get("id") or re.findall(r"/file/d/([^/]+)", parts.path)
    return google_drive(ids[0]) if ids else url


ENCRYPTED = 0x1
CHUNK_BYTES = 1 << 18
HEADER_BYTES = 1 << 20
"""No header of a member may be longer: tarfile reads each of them whole."""
EXPANSION = 100
"""An archive may expand to so many times its size: images hardly do."""
LEAST_LIMIT = 100 << 20
"""Whatever its size, an archive may expand to so many bytes."""
# Beginnings of compressed files, and what reads them.
COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
}


class BadArchiveError(OSError):
    """An archive is damaged, or refused for what it holds; it must be had anew or elsewhere."""


class NoRoomError(OSError):
    """The disk has not enough room for what an archive holds."""


def extract(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    """Extract a zip or a tar archive, whatever its name ends in.

    Refused are absolute paths, ``..``, symbolic links, hard links to anything but the archive's own files,
    devices and pipes, headers longer than 1 MiB, more than 100 MiB that are also more than 100 times the
    archive's size, and more bytes than the disk has free.

    Args:
        archive: The file.
        folder: Existing and, if the extraction fails, to be thrown away.
        on_bytes: Called with the bytes that are done and their total, to show progress.

    Raises:
        BadArchiveError: If the archive is damaged, refused or none at all; the message names it.
        NoRoomError: If the disk has not enough room for it; likewise.
        OSError: If it cannot be read; likewise.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    try:
        if start.startswith(b"PK"):
            _extract_zip(archive, folder, on_bytes)
        else:
            _extract_tar(archive, start, folder, on_bytes)
    except (BadArchiveError, NoRoomError):
        raise
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's word for damage
            _refuse_damaged(archive, error)
        raise OSError(f"{shown(archive)}: it cannot be extracted ({error.strerror})") from None
    except Exception as error:  # the parsers of archives raise whatever they stumble over
        _refuse_damaged(archive, error)


def _extract_zip(archive: Path, folder: Path, on_bytes: OnBytes) -> None:
    with ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            _check_name(archive, member.filename)
            _check_zip_kind(archive, member)
        total = sum(member.file_size for member in members)  # zipfile reads no more of any of them
        _check_size(archive, total)
        _check_room(archive, folder, total, shutil.disk_usage(folder).free)
        done = 0
        for member in members:
            opened.extract(member, folder)
            done += member.file_size
            on_bytes(done, total)


def _extract_tar(archive: Path, start: bytes, folder: Path, on_bytes: OnBytes) -> None:
    size = archive.stat().st_size
    free = shutil.disk_usage(folder).free
    written = 0
    with archive.open("rb") as file:
        readers = [reader for magic, reader in COMPRESSED.items() if start.startswith(magic)]
        stream = _Bounded(archive, readers[0](file) if readers else file)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as opened:
            for member in opened:
                _check_name(archive, member.name)
                _check_tar_kind(archive, folder, member)
                written += member.size
                _check_size(archive, written)
                _check_room(archive, folder, written, free)
                try:
                    opened.extract(member, folder, filter="data")
                except tarfile.FilterError as error:
                    raise _refused(archive, member.name, str(error)) from None
                on_bytes(file.tell(), size)
            # tarfile takes a damaged header, and a cut, for the end.
            if len(stream.last) != tarfile.BLOCKSIZE or any(stream.last):
                raise tarfile.ReadError("it has no end")
        # What follows the end holds the checksum of the whole.
        while rest := stream.read(CHUNK_BYTES):
            if any(rest):
                raise tarfile.ReadError("it goes on behind its end")


class _Bounded:
    """A tar archive's decompressed bytes, of which tarfile may not ask too many.

    Args:
        archive: The file, for messages and its size.
        stream: The bytes.

    Attributes:
        last: What was read last.
    """

    def __init__(self, archive: Path, stream: Any) -> None:
        self._archive = archive
        self._stream = stream
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > HEADER_BYTES:
            raise BadArchiveError(
                f"{shown(self._archive)}: refused, because a header in it is {size:,} bytes long; get the "
                "archive elsewhere"
            )
        self.last = self._stream.read(size)
        _check_size(self._archive, self._stream.tell())
        return self.last

    def seek(self, place: int) -> int:
        _check_size(self._archive, place)
        return int(self._stream.seek(place))

    def tell(self) -> int:
        return int(self._stream.tell())


def _check_name(archive: Path, name: str) -> None:
    parts = re.split(r"[/\\]", name)
    if not name or name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise _refused(archive, name, "would leave the folder")


def _check_zip_kind(archive: Path, member: ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(archive, member.filename, "is neither a file nor a folder")
    if member.flag_bits & ENCRYPTED:
        raise _refused(archive, member.filename, "is encrypted")


def _check_tar_kind(archive: Path, folder: Path, member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir() or member.islnk()):
        raise _refused(archive, member.name, "is neither a file nor a folder")
    if member.islnk():
        _check_name(archive, member.linkname)
        # tarfile would go back for what it has not linked, and decompress all anew.
        if not (folder / member.linkname).is_file():
            raise _refused(archive, member.name, "is a link to what is not there before it")


def _check_size(archive: Path, size: int) -> None:
    limit = max(LEAST_LIMIT, EXPANSION * archive.stat().st_size)
    if size > limit:
        raise BadArchiveError(
            f"{shown(archive)}: refused, because it holds {size:,} bytes or more, which is more than "
            f"{EXPANSION} times its size; get the archive elsewhere"
        )


def _check_room(archive: Path, folder: Path, needed: int, free: int) -> None:
    if needed > free:
        raise NoRoomError(
            f"{shown(archive)}: it holds {needed:,} bytes or more, "
            f"the disk of {os.fspath(folder)} has not as many free; make room and start again"
        )


def _refused(archive: Path, name: str, reason: str) -> BadArchiveError:
    return BadArchiveError(
        f"{shown(archive)}: refused, because its member {name!r} {reason}; get the archive elsewhere"
    )


def _refuse_damaged(archive: Path, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise BadArchiveError(f"{shown(archive)}: no archive, or a damaged one ({reason}); get it anew") from None
