"""Downloads of large files that go on where they stopped."""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from urllib.error import HTTPError, URLError
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

from typing_extensions import override

from hessalign.datasets.archives import OnBytes

TIMEOUT_SECONDS = 60
"""How long a connection may bring nothing at all."""
HEADER_SECONDS = 60.0
"""How long a server may take for the header of its answer, however often it sends a byte of it."""
PATIENCE = 3
"""Connections in a row that may bring nothing new before a download is given up."""
PAUSE_SECONDS = 2.0
LEAST_NEW_BYTES = 1 << 16
"""What a connection must bring to count as one that brought something."""
SLOW_SECONDS = 60.0
SLOW_BYTES_PER_SECOND = 1000
"""A connection that is slower for so long is given up."""
MOST_BYTES = 64 << 30
"""Where neither the server nor the caller says how long a file is; the largest archive has 7 GB."""
SPARE_BYTES = 256 << 20
"""So much of the disk is left free by a download whose size is not known."""
CHUNK_BYTES = 1 << 18
HTML_STARTS = (b"<!doctype html", b"<html")


class DownloadError(OSError):
    """A file cannot be had from its URL; the message names it."""


class ConnectionLostError(DownloadError):
    """The server went away, perhaps not for long."""


class TooLongError(DownloadError):
    """More arrives than may."""


class _RangeRefusedError(DownloadError):
    """The server does not have the bytes that were asked for."""


def fetch(url: str, path: Path, on_bytes: OnBytes, most_bytes: int = MOST_BYTES) -> None:
    """Download a file.

    What arrives is kept in ``path`` with ``.part`` added. Where that holds the beginning of the same file,
    only the rest is asked for; if the server cannot do so, or its file has changed, the download starts
    afresh. A connection that breaks is made again as long as that brings something new.

    Args:
        url: ``http`` or ``https``.
        path: Appears when the file is whole.
        on_bytes: Called with the bytes that are done and their total, to show progress.
        most_bytes: A longer file is refused.

    Raises:
        DownloadError: If the file cannot be had or arrives too slowly; what has arrived is kept.
        ConnectionLostError: If the server goes away and does not come back; likewise.
        TooLongError: If the file is too long; nothing of it is kept.
        OSError: If it cannot be written.
    """
    part = _Part(path.with_name(f"{path.name}.part"), url)
    at_first, failures = part.size(), 0
    while True:
        before = part.size()
        try:
            _receive(part, on_bytes, most_bytes)
            break
        except TooLongError:
            part.remove()
            raise
        except ConnectionLostError:
            failures = 0 if part.size() >= before + LEAST_NEW_BYTES else failures + 1
            if part.size() == at_first or failures == PATIENCE:
                raise
            time.sleep(PAUSE_SECONDS)
    os.replace(part.path, path)
    part.note.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Version:
    """What tells whether the server still has the same file."""

    url: str
    validator: str | None
    total: int | None


@dataclass(frozen=True)
class _Part:
    """The beginning of a file, and beside it which version of the file it begins."""

    path: Path
    url: str

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> _Version | None:
        """None where nothing that could go on is there."""
        try:
            version = _Version(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        known = isinstance(version.total, int | None) and isinstance(version.validator, str | None)
        return version if known and version.url == self.url and self.size() > 0 else None

    def begin(self, version: _Version) -> None:
        """Forget what is there."""
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps(asdict(version)), encoding="utf-8")

    def remove(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _receive(part: _Part, on_bytes: OnBytes, most_bytes: int) -> None:
    """Ask once for what is missing."""
    version = part.version()
    if version is None or not _go_on(part, version, on_bytes, most_bytes):
        with _open(part.url, {}) as response:
            version = _Version(part.url, _validator(response), _length(response))
            part.begin(version)
            _append(part, response, version.total, on_bytes, most_bytes)


def _go_on(part: _Part, version: _Version, on_bytes: OnBytes, most_bytes: int) -> bool:
    """Ask for the rest; False if the server has another file now or cannot send a part."""
    offset = part.size()
    if offset == version.total:
        return True
    headers = {"Range": f"bytes={offset}-"}
    if version.validator is not None:
        headers["If-Range"] = version.validator
    try:
        response = _open(part.url, headers)
    except _RangeRefusedError:
        return False
    with response:
        if response.status != 206 or _range(response) != (offset, version.total):
            return False
        _append(part, response, version.total, on_bytes, most_bytes)
    return True


def _append(
    part: _Part, response: HTTPResponse, total: int | None, on_bytes: OnBytes, most_bytes: int
) -> None:
    done = part.size()
    if total is not None and total > most_bytes:
        raise TooLongError(f"{part.url} has {total:,} bytes, allowed are {most_bytes:,}")
    _check_room(part, total, done)
    with part.path.open("ab") as file:
        for chunk in _chunks(part.url, response, None if total is None else total - done):
            if done == 0 and chunk.lstrip()[:15].lower().startswith(HTML_STARTS):
                raise DownloadError(_not_the_file(part.url))
            done += len(chunk)
            if total is None:
                _check_endless(part, done, most_bytes)
            file.write(chunk)
            on_bytes(done, total)
    if total is not None and done < total:
        raise ConnectionLostError(f"{part.url} broke off after {done:,} of {total:,} bytes")


def _check_endless(part: _Part, done: int, most_bytes: int) -> None:
    """Refuse to go on with a file of unknown length that is too long for its purpose or for the disk."""
    if done > most_bytes:
        raise TooLongError(f"{part.url} sends more than the {most_bytes:,} bytes that are allowed")
    if shutil.disk_usage(part.path.parent).free < SPARE_BYTES:
        raise TooLongError(
            f"{part.url} does not say how long it is, and after {done:,} bytes the disk of "
            f"{part.path.parent} is all but full"
        )


class _BoundedConnection(HTTPConnection):
    """A connection that is cut where the header takes too long: a timeout is of each read alone."""

    @override
    def getresponse(self) -> HTTPResponse:
        cut: list[bool] = []

        def give_up() -> None:
            cut.append(True)
            with suppress(OSError, AttributeError):  # there may be no socket any more
                self.sock.shutdown(socket.SHUT_RDWR)

        timer = Timer(HEADER_SECONDS, give_up)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (HTTPException, OSError):
            if not cut:
                raise
        finally:
            timer.cancel()
        # A header that was cut short would pass for a whole one.
        if cut:
            raise TimeoutError(f"no header within {HEADER_SECONDS:g} seconds")
        return response


class _BoundedSecureConnection(_BoundedConnection, HTTPSConnection):
    """The same, encrypted."""


class _BoundedHTTP(HTTPHandler):
    @override
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_BoundedConnection, req)


class _BoundedHTTPS(HTTPSHandler):
    @override
    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_BoundedSecureConnection, req)


def _open(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    agent = {"User-Agent": f"hessalign/{version('hessalign')}", "Accept-Encoding": "identity"}
    try:
        opener = build_opener(_BoundedHTTP, _BoundedHTTPS)
        response: HTTPResponse = opener.open(
            Request(url, headers={**agent, **headers}), timeout=TIMEOUT_SECONDS
        )
    except HTTPError as error:
        error.close()
        kind = _RangeRefusedError if error.code == 416 else DownloadError
        raise kind(f"{url} answers {error.code} {error.reason}") from None
    except (InvalidURL, UnicodeError) as error:
        raise DownloadError(f"{url} is no address ({error})") from None
    except (URLError, HTTPException, OSError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise ConnectionLostError(f"{url} cannot be reached ({reason})") from None
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        response.close()
        raise DownloadError(_not_the_file(url))
    return response


def _chunks(url: str, response: HTTPResponse, wanted: int | None) -> Iterator[bytes]:
    """What arrives, as it arrives: a read of a whole chunk would wait for a slow server.

    Args:
        url: Address, for messages.
        response: What is read.
        wanted: Number of bytes; None for all.

    Yields:
        What one read brings, never nothing.

    Raises:
        ConnectionLostError: If the connection breaks.
        DownloadError: If too little arrives for too long.
    """
    started, arrived, total = time.monotonic(), 0, 0
    while wanted is None or total < wanted:
        try:
            chunk = response.read1(CHUNK_BYTES if wanted is None else min(CHUNK_BYTES, wanted - total))
        except (HTTPException, OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConnectionLostError(f"{url} broke off ({reason})") from None
        if not chunk:
            return
        yield chunk
        arrived, total = arrived + len(chunk), total + len(chunk)
        seconds = time.monotonic() - started
        if seconds >= SLOW_SECONDS:
            if arrived < SLOW_BYTES_PER_SECOND * seconds:
                raise DownloadError(
                    f"{url} sent {arrived:,} bytes in {seconds:.0f} seconds, which is too slow"
                )
            started, arrived = time.monotonic(), 0


def _length(response: HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not (length.isascii() and length.strip().isdecimal()):
        raise DownloadError(f"{response.url} says that its length is {length[:40]!r}, which is no number")
    return int(length)


def _range(response: HTTPResponse) -> tuple[int, int | None] | None:
    """First byte of a partial answer, and size of the whole."""
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return found and (int(found[1]), None if found[2] == "*" else int(found[2]))


def _validator(response: HTTPResponse) -> str | None:
    """A strong ETag or else the date: what a server accepts to tell whether its file is still the same."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _check_room(part: _Part, total: int | None, offset: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - offset > free:
        raise OSError(
            f"{part.path.parent}: the disk has {free:,} free bytes, "
            f"the rest of {part.url} needs {total - offset:,}; make room and start again"
        )


def _not_the_file(url: str) -> str:
    return f"{url} answers with a web page instead of the file"
