"""A real HTTP server on this machine that can be told to misbehave."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file.

    Attributes:
        ranges: Whether parts of it can be asked for.
        etag: None to leave it out.
        cut_after: Bytes after which each answer breaks off; None for never.
        length: What the answer says of its length; None for the truth, empty to leave it out.
        pause: Seconds between two bytes.
        endless: Send the content over and over.
        requests: The Range header of each request so far.
        sent: Number of bytes answered with so far.
    """

    content: bytes
    ranges: bool = True
    etag: str | None = '"1"'
    kind: str = "application/octet-stream"
    cut_after: int | None = None
    length: str | None = None
    pause: float = 0
    endless: bool = False
    requests: list[str | None] = field(default_factory=list)
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}

    def add(self, name: str, content: bytes, **how) -> str:
        """The URL of a new file."""
        self.files[f"/{name}"] = Served(content, **how)
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        served = self.server.files.get(self.path)
        if served is None:
            self.send_error(404)
            return
        wanted = self.headers["Range"]
        served.requests.append(wanted)
        total, start = len(served.content), 0
        condition = self.headers["If-Range"]
        if wanted and served.ranges and condition in (None, served.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if served.etag is not None:
            self.send_header("ETag", served.etag)
        self.send_header("Content-Type", served.kind)
        length = str(total - start) if served.length is None else served.length
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        body = served.content[start:]
        body = body if served.cut_after is None else body[: served.cut_after]
        served.sent += len(body)
        self.close_connection = True
        with suppress(ConnectionError):  # whoever asked has had enough
            self._send(served, body)

    def _send(self, served: Served, body: bytes) -> None:
        while served.endless:
            self.wfile.write(body)
        if not served.pause:
            self.wfile.write(body)
            return
        for place in range(len(body)):
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            time.sleep(served.pause)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
