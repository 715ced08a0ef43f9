"""A web server on this machine that can misbehave, and remembers what it was asked for."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass
class Answer:
    """How the next answer differs from a good one; each is used once, in order."""

    status: int = 0  # this status, without a body
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # close the connection after so many bytes of the body
    stall: int | None = None  # say nothing more after so many
    sleep: float = 0.0  # seconds before every hundredth of the body
    body: bytes | None = None  # this body instead of the file, and no range
    drop: tuple[str, ...] = ()  # headers to leave out
    shift: int = 0  # answer a range with one that begins so much later


@dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    sent: int = 0


class Site:
    """Serves `files` by path on a port of its own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.dates: dict[str, str] = {}
        self.moved: dict[str, str] = {}
        self.answers: deque[Answer] = deque()
        self.log: list[Request] = []
        self.ranges = True
        self.released = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if tls is not None:
            scheme = "https"
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = False
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        host = "localhost" if tls else "127.0.0.1"
        self.address = f"{scheme}://{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def put(self, path: str, data: bytes, *, etag: str = "", date: str = "") -> str:
        """Serve a file; return its address."""
        self.files[path] = data
        self.etags[path], self.dates[path] = etag, date
        return self.address + path

    def asked(self) -> list[str | None]:
        """Return the `Range` of every request so far."""
        return [request.range for request in self.log]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, headers = handler.path, handler.headers
        request = Request(path, headers.get("Range"), headers.get("If-Range"))
        self.log.append(request)
        how = self.answers.popleft() if self.answers else Answer()
        status, body, extra = self._reply(request, how)
        extra = {**extra, "Content-Length": str(len(body)), **how.headers}
        request.status = status
        handler.send_response(status)
        for name, value in extra.items():
            if value and name not in how.drop:
                handler.send_header(name, value)
        handler.end_headers()
        self._send(handler, body, request, how)

    def _reply(self, request: Request, how: Answer) -> tuple[int, bytes, dict[str, str]]:
        path = request.path
        if how.status:
            return how.status, b"", {}
        if path in self.moved:
            return 302, b"", {"Location": self.moved[path]}
        if how.body is not None:
            return 200, how.body, {}
        if path not in self.files:
            return 404, b"", {}
        data = self.files[path]
        versions = {"ETag": self.etags[path], "Last-Modified": self.dates[path]}
        begin = self._begin(request, versions)
        if begin is None:
            return 200, data, versions
        if begin >= len(data):
            return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
        begin += how.shift
        span = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return 206, data[begin:], {**versions, "Content-Range": span}

    def _begin(self, request: Request, versions: dict[str, str]) -> int | None:
        """Return where the answer begins; None for the whole file."""
        wanted = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        if not self.ranges or not wanted:
            return None
        if request.if_range is not None and request.if_range not in versions.values():
            return None
        return int(wanted[1])

    def _send(
        self, handler: BaseHTTPRequestHandler, body: bytes, request: Request, how: Answer
    ) -> None:
        stops = [stop for stop in (how.cut, how.stall) if stop is not None]
        body = body[: min(stops, default=len(body))]
        step = max(1, len(body) // 100) if how.sleep else max(1, len(body))
        for at in range(0, len(body), step):
            time.sleep(how.sleep)
            chunk = body[at : at + step]
            handler.wfile.write(chunk)
            request.sent += len(chunk)
        handler.wfile.flush()
        if how.stall is not None:
            self.released.wait(30)
        handler.close_connection = True


def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every look-up of another machine's name or address fail the test."""
    import socket

    real = socket.getaddrinfo

    def guarded(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in LOOPBACK:
            pytest.fail(f"a test asked for {host}")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for name in ("ENTITYBENCH_MIRROR", "ENTITYBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def sources_table(path: Path, source: str, *archives: dict[str, Any], **listing: Any) -> Path:
    """Write a table of sources with one source."""
    import json

    def pairs(values: dict[str, Any]) -> list[str]:
        return [f"{key} = {json.dumps(value)}" for key, value in values.items()]

    lines = [f"[{source}]", *pairs({"title": source.title(), "page": "http://page", **listing})]
    for archive in archives:
        defaults = {"holds": "annotations", "licence": "CC0"}
        lines += [f"[[{source}.archives]]", *pairs({**defaults, **archive})]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
