"""A server on this machine that serves files well or badly, and a session whose https requests reach it."""

import contextlib
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import HTTPAdapter

from clcae_lib.weights.fetch import https_session


class Request(BaseHTTPRequestHandler):
    """One request, answered by the next behaviour of its path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.query = dict(parse_qsl(urlsplit(self.path).query))
        self.server.requests.append(self)
        behaviours = self.server.routes[urlsplit(self.path).path]
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            behaviour(self)

    def head(self, status: int = 200, **headers: object) -> None:
        """Send status and headers; underscores in names become hyphens."""
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


Behaviour = Callable[[Request], None]


class Server(ThreadingHTTPServer):
    """Behaviours by path: each request takes the next one, the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.routes: dict[str, list[Behaviour]] = {}
        self.requests: list[Request] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def serve(self, path: str, *behaviours: Behaviour) -> None:
        self.routes[path] = list(behaviours)

    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.requests]

    def session(self) -> requests.Session:
        """Return the library's session, but every https host is this server, and retries do not wait."""
        session = https_session()
        retries = session.get_adapter("https://files.test").max_retries.new(backoff_factor=0)
        session.mount("https://", _ToServer(self.server_port, max_retries=retries))
        return session


class _ToServer(HTTPAdapter):
    def __init__(self, port: int, **options: object) -> None:
        super().__init__(**options)
        self.port = port
        self.timeouts: list[tuple[float, float]] = []

    def send(self, request: requests.PreparedRequest, **options: object) -> requests.Response:
        self.timeouts.append(options["timeout"])
        local, parts = request.copy(), urlsplit(request.url)
        local.url = parts._replace(scheme="http", netloc=f"127.0.0.1:{self.port}").geturl()
        response = super().send(local, **{**options, "proxies": {}})
        response.url, response.request = request.url, request
        return response


def whole(
    content: bytes, *, etag: str | None = '"one"', ranges: bool = True, stop: int | None = None, **more
):
    """Serve a file properly; `stop` cuts the connection after that many bytes of each answer."""

    def behave(request: Request) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(found[1]) if found and ranges else 0
        body, marks = content[start:], {"ETag": etag} if etag else {}
        if start and not body:
            return request.head(416, Content_Length=0, Content_Range=f"bytes */{len(content)}")
        if start:
            marks["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.head(206 if start else 200, Content_Length=len(body), **marks, **more)
        request.wfile.write(body[:stop])

    return behave


def raw(status: int, body: bytes = b"", **headers: object) -> Behaviour:
    """Serve just this; the length is that of the body unless a header says otherwise."""

    def behave(request: Request) -> None:
        request.head(status, **{"Content_Length": len(body), **headers})
        request.wfile.write(body)

    return behave
