"""As much of the Hugging Face Hub as its client needs to fetch models, on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class ModelHub(ThreadingHTTPServer):
    """Serves folders as repositories; every `publish` of one is a commit more."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[tuple[str, Path]]] = {}
        """owner/name -> commit and folder, the oldest first"""
        self.fetched: list[str] = []
        """files that were asked for, with their repository"""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, repository: str, folder: Path) -> str:
        """Add a commit and return its hash."""
        history = self.commits.setdefault(repository, [])
        history.append((hashlib.sha1(f"{repository} {len(history)}".encode()).hexdigest(), folder))
        return history[-1][0]


class Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(revision|tree)/([^/]+))?", path):
            repository, revision, tree = asked[1], asked[4] or "main", asked[3] == "tree"
        elif asked := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, tree = asked[1], asked[2], False
        else:
            return self._answer(404, b"{}", {})
        history = self.server.commits.get(repository)
        if history is None:
            return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit, folder = next((one for one in history if one[0] == revision), history[-1])
        if revision not in ("main", commit):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if not path.startswith("/api"):
            return self._file(repository, commit, folder, asked[3])
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        listed = [{"type": "file", "path": p.relative_to(folder).as_posix(), **_described(p)} for p in files]
        about = listed if tree else {"id": repository, "sha": commit, "siblings": []}
        return self._answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    do_HEAD = do_GET

    def _file(self, repository: str, commit: str, folder: Path, name: str) -> None:
        if not (folder / name).is_file():
            return self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.server.fetched.append(f"{repository}/{name}")
        etag = f'"{_described(folder / name)["oid"]}"'
        return self._answer(200, (folder / name).read_bytes(), {"ETag": etag, "X-Repo-Commit": commit})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _described(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    return {"size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def model_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """Serve a hub that the client of this process talks to, with an empty cache."""
    server = ModelHub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
