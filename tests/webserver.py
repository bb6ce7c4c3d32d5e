"""A web server on loopback with an answer per path, or the files of a folder; `hub.py` builds on it."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

Answer = Callable[["Handler", int], None]
"""called with the request and the number of earlier requests of its path"""


class Server(ThreadingHTTPServer):
    """Serve `answers[path]`; unknown paths are 404."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: dict[str, Answer], host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Handler)
        self.answers = answers
        self.asked: Counter[str] = Counter()
        """path -> number of GET requests"""
        self.queries: set[str] = set()
        self.headers: list[Message] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, request: Handler, before: int) -> None:
        self.answers.get(request.url, status(404))(request, before)

    def handle_error(self, request: object, client_address: object) -> None:
        """Disconnected clients are expected."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def url(self) -> str:
        return urlsplit(self.path).path

    def do_GET(self) -> None:
        server, got = self.server, self.command == "GET"
        with server.lock:
            before = server.asked[self.url]
            server.asked[self.url] += got
            server.queries.add(urlsplit(self.path).query)
            server.headers.append(self.headers)
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            server.answer(self, before)
        finally:
            with server.lock:
                server.busy -= 1

    do_HEAD = do_POST = do_PUT = do_GET

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def begin(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": str(length)} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.begin(code, len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, code: int, value: object, **headers: str) -> None:
        self.reply(code, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def reply_file(self, data: bytes, **headers: str) -> None:
        code, part, more = self.range_of(data)
        self.reply(code, part, **headers, **more)

    def range_of(self, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return 200, data, {}
        start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            return 416, b"", {}
        return 206, data[start : end + 1], {"Content_Range": f"bytes {start}-{end}/{len(data)}"}

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(2)
        self.close_connection = True


# --- what a path may do


def body(data: bytes, **headers: str) -> Answer:
    return lambda request, before: request.reply(200, data, **headers)


def status(code: int, **headers: str) -> Answer:
    return lambda request, before: request.reply(code, **headers)


def first(times: int, answer: Answer, then: Answer) -> Answer:
    return lambda request, before: (answer if before < times else then)(request, before)


def ranged(data: bytes, etag: str = '"v1"', cut_at: int | None = None) -> Answer:
    """Serve ranges of `data` with an ETag, and disconnect after `cut_at` bytes of each answer."""

    def answer(request: Handler, before: int) -> None:
        same = request.headers.get("If-Range", etag) == etag
        code, part, more = request.range_of(data) if same else (200, data, {})
        request.begin(code, len(part), ETag=etag, **more)
        request.wfile.write(part[:cut_at])
        if cut_at and cut_at < len(part):
            request.hang_up()

    return answer


def cut(data: bytes, at: int, of: int | None = None) -> Answer:
    """Announce all of `data`, or `of` bytes, and disconnect after `at`."""

    def answer(request: Handler, before: int) -> None:
        request.begin(200, of or len(data))
        request.wfile.write(data[:at])
        request.hang_up()

    return answer


def hang(request: Handler, before: int) -> None:
    request.server.closing.wait(30)


def drip(request: Handler, before: int) -> None:
    request.begin(200, 1000)
    while not request.server.closing.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()


# --- a folder


class Folder(Server):
    """Serve the files of a folder; its attributes change how, except for manifests, which are always complete."""

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self.folder = folder
        self.cut_after: int | None = None
        """bytes of a body after which the connection is cut"""
        self.held = False
        """whether the second half of a body waits"""
        self.ranges = True
        """whether Range is supported"""
        self.status: int | None = None
        """status code of every answer, if set"""
        self.password: str | None = None
        """required Authorization header"""

    def answer(self, request: Handler, before: int) -> None:
        path = self.folder / unquote(request.url).lstrip("/")
        denied = self.password and request.headers.get("Authorization") != self.password
        if request.command == "GET" and (self.status or denied):
            return request.reply(self.status or 401)
        if not path.is_file():
            return request.reply(404)
        data = path.read_bytes()
        code, part, headers = request.range_of(data) if self.ranges else (200, data, {})
        request.begin(code, len(part), ETag='"tag"', Last_Modified=formatdate(0, usegmt=True), **headers)
        if request.command == "HEAD":
            return None
        spared = path.name == "manifest.json"  # which is read before any file is written
        if self.cut_after is not None and len(part) > self.cut_after and not spared:
            request.wfile.write(part[: self.cut_after])
            return request.hang_up()
        half = 0 if spared else len(part) // 2
        request.wfile.write(part[:half])
        request.wfile.flush()
        while half and self.held and not self.closing.wait(0.05):
            pass
        request.wfile.write(part[half:])
        return None


S = TypeVar("S", bound=Server)


@contextmanager
def listening(server: S) -> Iterator[S]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(answers: dict[str, Answer], host: str = "127.0.0.1") -> Iterator[Server]:
    with listening(Server(answers, host)) as server:
        yield server
