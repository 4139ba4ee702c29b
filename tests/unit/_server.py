"""A server on this machine that serves files well or badly, as each test asks."""

import contextlib
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


class Request(BaseHTTPRequestHandler):
    """One request; a behaviour answers it with these helpers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Notes the request and lets the next behaviour of its path answer."""
        self.close_connection = True
        self.query = dict(parse_qsl(urlsplit(self.path).query))
        self.server.requests.append(self)
        behaviours = self.server.routes[urlsplit(self.path).path]
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            behaviour(self)

    def head(self, status: int = 200, **headers: object) -> None:
        """Status and headers; underscores in names become hyphens."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


Behaviour = Callable[[Request], None]


class Server(ThreadingHTTPServer):
    """Behaviours by path: each request takes the next, the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.routes: dict[str, list[Behaviour]] = {}
        self.requests: list[Request] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def serve(self, path: str, *behaviours: Behaviour) -> str:
        """The address of `path`, which now behaves like this."""
        self.routes[path] = list(behaviours)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [request.headers.get("Range") for request in self.requests]


def whole(
    content: bytes, *, etag: str | None = '"one"', ranges: bool = True, stop: int | None = None, **more
):
    """Serves a file properly; `stop` cuts the connection after that many bytes of each answer."""

    def behave(request: Request) -> None:
        start = _start(request, etag) if ranges else 0
        body = content[start:]
        headers = {"Content_Length": len(body), **({"ETag": etag} if etag else {}), **more}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.head(206 if start else 200, **headers)
        request.wfile.write(body[:stop])

    return behave


def _start(request: Request, etag: str | None) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    fresh = request.headers.get("If-Range", etag) == etag
    return int(found[1]) if found and fresh else 0


def raw(status: int, body: bytes = b"", **headers: object) -> Behaviour:
    """Serves just this; the length is that of the body unless a header says otherwise."""

    def behave(request: Request) -> None:
        request.head(status, **{"Content_Length": len(body), **headers})
        request.wfile.write(body)

    return behave


def dribble(content: bytes, *, first: int, every: float, size: int = 1) -> Behaviour:
    """Sends the first bytes at once and then `size` more `every` so many seconds."""

    def behave(request: Request) -> None:
        request.head(200, Content_Length=len(content), ETag='"one"')
        request.wfile.write(content[:first])
        for at in range(first, len(content), size):
            request.wfile.flush()
            time.sleep(every)
            request.wfile.write(content[at : at + size])

    return behave


def endless(request: Request) -> None:
    """Chunks without end."""
    request.head(200, Transfer_Encoding="chunked")
    while True:
        request.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def until_closed(content: bytes) -> Behaviour:
    """A body that ends where the connection does."""

    def behave(request: Request) -> None:
        request.head(200, Connection="close")
        request.wfile.write(content)

    return behave
