"""A web server on loopback that serves a folder, and misbehaves on demand."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Server(ThreadingHTTPServer):
    """Serves `folder`; what is set on it changes how."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.cut_after: int | None = None
        """bytes of a body before the connection is cut; the manifest is spared"""
        self.pause = 0.0
        """seconds between the halves of a body; the manifest is spared"""
        self.ranges = True
        """whether Range is obeyed"""
        self.status: int | None = None
        """of every answer"""
        self.password: str | None = None
        """Authorization header that is asked for"""
        self.requests: Counter[str] = Counter()
        """path -> how often it was asked for"""
        self.queries: set[str] = set()
        self.authorizations: set[str | None] = set()

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

    def do_HEAD(self) -> None:
        """Answer as stores of objects do; only S3 is asked in this way."""
        path = self.server.folder / unquote(self.path).lstrip("/")
        if not path.is_file():
            return self._empty(404)
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self._validators()
        self.end_headers()
        return None

    def _validators(self) -> None:
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", formatdate(0, usegmt=True))

    def do_GET(self) -> None:
        server = self.server
        server.authorizations.add(self.headers.get("Authorization"))
        parts = urlsplit(self.path)
        server.requests[parts.path] += 1
        server.queries.add(parts.query)
        path = server.folder / unquote(parts.path).lstrip("/")
        if server.status or (server.password and self.headers.get("Authorization") != server.password):
            return self._empty(server.status or 401)
        if not path.is_file():
            return self._empty(404)
        data = path.read_bytes()
        start, end = 0, len(data)
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if requested and server.ranges:
            start, end = int(requested[1]), int(requested[2] or end - 1) + 1
            if start >= len(data):
                return self._empty(416)
        partial = start > 0 or end < len(data)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self._validators()
        body = data[start:end]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cut_after is not None and len(body) > server.cut_after and path.name != "manifest.json":
            self.wfile.write(body[: server.cut_after])
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return None
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        time.sleep(server.pause if path.name != "manifest.json" else 0)
        self.wfile.write(body[half:])
        return None

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
