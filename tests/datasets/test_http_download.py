"""Downloads from a real server that breaks off, refuses parts, or answers with something else."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from hessalign.datasets import http_download
from hessalign.datasets.http_download import DownloadError, fetch
from tests.datasets.server import Server, serving

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(http_download, "PAUSE_SECONDS", 0)
    with serving() as running:
        yield running


def get(url: str, path: Path) -> list[tuple[int, int | None]]:
    """Download, and what was reported."""
    seen = []
    fetch(url, path, lambda done, total: seen.append((done, total)))
    return seen


def leftovers(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()} - {path.name}


def interrupt(server: Server, url: str, path: Path, after: int) -> None:
    """Leave the beginning of the download as a killed process would."""
    served = server.files["/" + url.rsplit("/", 1)[1]]

    def stop(done: int, total: int | None) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, path, stop)
    assert not path.exists()
    served.requests.clear()
    served.sent = 0


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = get(server.add("file", CONTENT), path)
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert leftovers(path) == set()


@pytest.mark.parametrize("etag", ['"1"', None])
def test_only_the_rest_is_asked_for(server: Server, tmp_path: Path, etag: str | None) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT, etag=etag)
    interrupt(server, url, path, after=500_000)
    have = (tmp_path / "file.part").stat().st_size
    assert 0 < have < len(CONTENT)
    get(url, path)
    served = server.files["/file"]
    assert path.read_bytes() == CONTENT
    assert served.requests == [f"bytes={have}-"]
    assert served.sent == len(CONTENT) - have


def test_without_ranges_it_starts_afresh(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT, ranges=False)
    interrupt(server, url, path, after=500_000)
    get(url, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"2"', None])
def test_a_changed_file_is_not_mixed_with_the_old_one(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT, etag=etag and '"1"')
    interrupt(server, url, path, after=500_000)
    other = np.random.default_rng(1).bytes(1_200_000)
    server.add("file", other, etag=etag)
    get(url, path)
    assert path.read_bytes() == other


def test_a_shorter_file_is_taken_whole(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT, etag=None)
    interrupt(server, url, path, after=500_000)
    server.add("file", b"short", etag=None)
    get(url, path)
    assert path.read_bytes() == b"short"


def test_what_was_whole_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT)
    interrupt(server, url, path, after=len(CONTENT))
    get(url, path)
    assert path.read_bytes() == CONTENT
    assert server.files["/file"].requests == []


def test_a_connection_that_breaks_is_made_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    get(server.add("file", CONTENT, cut_after=300_000), path)
    assert path.read_bytes() == CONTENT
    served = server.files["/file"]
    assert served.requests == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert served.sent == len(CONTENT)


def test_a_server_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT, cut_after=300_000, ranges=False)
    with pytest.raises(DownloadError, match=r"file broke off after 300,000 of 1,000,000 bytes"):
        get(url, path)
    assert not path.exists()


def test_a_closed_port_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/file"
    with pytest.raises(DownloadError, match=f"^{re.escape(url)} cannot be reached .*refused"):
        get(url, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_server_is_named(server: Server, tmp_path: Path) -> None:
    url = server.add("file", CONTENT) + ".zip"
    with pytest.raises(DownloadError, match=f"^{re.escape(url)} answers 404 Not Found"):
        get(url, tmp_path / "file")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_not_the_file(server: Server, tmp_path: Path, kind: str) -> None:
    url = server.add("file", b"\n<!DOCTYPE html><html>Virus scan warning</html>", kind=kind)
    with pytest.raises(DownloadError, match="file answers with a web page instead of the file"):
        get(url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_full_disk_is_noticed_before_anything_is_downloaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("file", CONTENT)
    usage = http_download.shutil.disk_usage(tmp_path)._replace(free=999_999)
    monkeypatch.setattr(http_download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"the disk has 999,999 free bytes, the rest of .* needs 1,000,000"):
        get(url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_an_endless_file_is_refused_and_not_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("file", CONTENT, endless=True, length="")
    with pytest.raises(DownloadError, match="file sends more than the 3,000,000 bytes that are allowed"):
        fetch(url, tmp_path / "file", lambda done, total: None, most_bytes=3_000_000)
    assert list(tmp_path.iterdir()) == []
    usage = http_download.shutil.disk_usage(tmp_path)._replace(free=http_download.SPARE_BYTES - 1)
    monkeypatch.setattr(http_download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"does not say how long it is, and after .* all but full"):
        get(url, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unknown_length_arrives(server: Server, tmp_path: Path) -> None:
    get(server.add("file", CONTENT, length=""), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_more_than_was_said_is_not_read(server: Server, tmp_path: Path) -> None:
    get(server.add("file", CONTENT, length="1000"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[:1000]


def test_a_longer_file_than_allowed_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has 1,000,000 bytes, allowed are 999"):
        fetch(server.add("file", CONTENT), tmp_path / "file", lambda done, total: None, most_bytes=999)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["abc", "-5", "1e6"])
def test_a_length_that_is_no_number_is_named(server: Server, tmp_path: Path, length: str) -> None:
    url = server.add("file", CONTENT, length=length)
    with pytest.raises(DownloadError, match=f"says that its length is '{length}', which is no number"):
        get(url, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_drips_is_given_up_and_what_came_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_download, "SLOW_SECONDS", 0.1)
    url = server.add("file", CONTENT[:500], pause=0.01)
    with pytest.raises(DownloadError, match=r"file sent \d+ bytes in 0 seconds, which is too slow"):
        get(url, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size > 0
    server.files["/file"].pause = 0
    get(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[:500]


def dripping(listener: socket.socket) -> None:
    """Answer one request with a header that comes byte by byte, and takes two seconds."""
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: ")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)
        connection.sendall(b"\r\n\r\nabc")


def test_a_server_that_drips_its_header_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_download, "HEADER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=dripping, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match=r"cannot be reached \(no header within 0.2 seconds\)"):
            get(url, tmp_path / "file")
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_connections_that_bring_next_to_nothing_are_counted(server: Server, tmp_path: Path) -> None:
    url = server.add("file", CONTENT, cut_after=10)
    with pytest.raises(DownloadError, match="broke off after 30 of"):
        get(url, tmp_path / "file")


@pytest.mark.parametrize("address", ["http://", "http://a b/c", "http://127.0.0.1:x/", "http://\udce9/"])
def test_what_is_no_address_is_named(tmp_path: Path, address: str) -> None:
    with pytest.raises(DownloadError, match=r"is no address|cannot be reached"):
        get(address, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("about", ["[]", "{", '{"url": 1}', "[" * 5000, '"x"'])
def test_a_damaged_note_of_a_download_is_not_trusted(server: Server, tmp_path: Path, about: str) -> None:
    path = tmp_path / "file"
    url = server.add("file", CONTENT)
    interrupt(server, url, path, after=500_000)
    for text in (about, json.dumps({"url": url, "validator": 3, "total": "many"})):
        (tmp_path / "file.part.json").write_text(text)
        (tmp_path / "file.part").write_bytes(b"other bytes")
        get(url, path)
        assert path.read_bytes() == CONTENT
