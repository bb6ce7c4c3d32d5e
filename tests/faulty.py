"""A web server on loopback whose every path does what a test tells it to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = Callable[["Handler", int], None]
"""called with the request and how often its path was asked for before"""


class Server(ThreadingHTTPServer):
    """Answers by `answers[path]`; unknown paths are 404."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: dict[str, Answer], host: str) -> None:
        super().__init__((host, 0), Handler)
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up; that is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server, urlsplit(self.path).path
        with server.lock:
            before = server.asked[path]
            server.asked[path] += 1
            server.headers.append(dict(self.headers))
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            server.answers.get(path, status(404))(self, before)
        finally:
            with server.lock:
                server.busy -= 1

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def body(data: bytes, **headers: str) -> Answer:
    return lambda request, before: request.reply(200, data, **headers)


def status(code: int, **headers: str) -> Answer:
    return lambda request, before: request.reply(code, **headers)


def first(times: int, answer: Answer, then: Answer) -> Answer:
    """Give `answer` that many times, `then` afterwards."""
    return lambda request, before: (answer if before < times else then)(request, before)


def cut(data: bytes, at: int, of: int | None = None) -> Answer:
    """Promise all of `data`, or `of` bytes, and hang up after `at`."""

    def answer(request: Handler, before: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(of or len(data)))
        request.end_headers()
        request.wfile.write(data[:at])
        request.wfile.flush()
        request.connection.shutdown(2)
        request.close_connection = True

    return answer


def hang(request: Handler, before: int) -> None:
    """Say nothing until the server closes."""
    request.server.closing.wait(30)


def drip(request: Handler, before: int) -> None:
    """Send a byte every now and then."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    while not request.server.closing.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()


@contextmanager
def serving(answers: dict[str, Answer], host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server(answers, host)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
