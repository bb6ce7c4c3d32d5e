"""As much of the Hugging Face Hub as its client needs to read and commit to one dataset repository, on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPOSITORY = "owner/name"


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.commits: list[dict[str, bytes]] = [{}]
        self.large: dict[str, bytes] = {}
        """hash -> content of large files, uploaded before they are committed"""
        self.uploads = 0
        self.before_commit: Callable[[], None] = lambda: None
        """called once when a commit arrives, before it is looked at"""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def sha(self, number: int = -1) -> str:
        return hashlib.sha1(str(number % len(self.commits)).encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.files
        return next((files for i, files in enumerate(self.commits) if self.sha(i) == revision), None)


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != "Bearer right":
            return self._json(401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials"})
        if found := re.fullmatch(f"/api/datasets/{REPOSITORY}(/revision/(.+))?", path):
            return self._revision(found[2] or "main")
        if found := re.fullmatch(f"/datasets/{REPOSITORY}/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], found[2])
        if found := re.fullmatch(f"/api/datasets/{REPOSITORY}/tree/([^/]+)(/(.+))?", path):
            return self._tree(found[1], found[3] or "")
        if path.startswith("/api/datasets/"):
            return self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return self._json(404, {"error": path})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        if path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if path == f"/api/datasets/{REPOSITORY}/preupload/main":
            modes = [
                (f["path"], "lfs" if f["path"].endswith(".parquet") else "regular") for f in json.loads(body)["files"]
            ]
            return self._json(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
        if path == f"/datasets/{REPOSITORY}.git/info/lfs/objects/batch":
            return self._json(200, {"objects": [self._upload(o) for o in json.loads(body)["objects"]]})
        if found := re.fullmatch(f"/api/datasets/{REPOSITORY}/paths-info/(.+)", path):
            return self._infos(found[1], body)
        if path == f"/api/datasets/{REPOSITORY}/commit/main":
            return self._commit([json.loads(line) for line in body.splitlines()])
        return self._json(404, {"error": path})

    def do_PUT(self) -> None:
        body = self._body()
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self.server.uploads += 1
        self._json(200, {})

    def _revision(self, revision: str) -> None:
        server = self.server
        if server.at(revision) is None:
            return self._json(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
        return self._json(200, {"id": REPOSITORY, "sha": server.sha() if revision == "main" else revision})

    def _infos(self, revision: str, body: bytes) -> None:
        wanted = (
            json.loads(body)["paths"]
            if body.startswith(b"{")
            else [unquote(v) for v in re.findall(r"paths=([^&]*)", body.decode())]
        )
        files = self.server.at(revision) or {}
        infos = [
            {"type": "file", "path": p, "size": len(files[p]), "oid": hashlib.sha1(files[p]).hexdigest()}
            for p in wanted
            if p in files
        ]
        self._json(200, infos)

    def _tree(self, revision: str, folder: str) -> None:
        files = self.server.at(revision) or {}
        below = {p: p.removeprefix(f"{folder}/" if folder else "") for p in files if p.startswith(folder)}
        entries = {
            p: {"type": "file", "path": p, "size": len(files[p]), "oid": hashlib.sha1(files[p]).hexdigest()}
            for p, name in below.items()
            if "/" not in name
        }
        if not below:
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        return self._json(200, list(entries.values()))

    def _file(self, revision: str, path: str) -> None:
        files = self.server.at(revision) or {}
        if path not in files:
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        data, status, more = files[path], 200, {}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
            status, more = 206, {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            data = data[start : end + 1]
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self._answer(status, data, {"ETag": etag, "X-Repo-Commit": self.server.sha(), **more})

    def _upload(self, wanted: dict) -> dict:
        have = wanted["oid"] in self.server.large
        actions = {} if have else {"actions": {"upload": {"href": f"{self.server.address}/upload/{wanted['oid']}"}}}
        return {"oid": wanted["oid"], "size": wanted["size"]} | actions

    def _commit(self, lines: list[dict]) -> None:
        server = self.server
        interfere, server.before_commit = server.before_commit, lambda: None
        interfere()
        with server.lock:
            if lines[0]["value"].get("parentCommit", server.sha()) != server.sha():
                return self._json(412, {"error": "the head has moved"})
            files = dict(server.files)
            for line in lines[1:]:
                value = line["value"]
                files[value["path"]] = (
                    server.large[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
                )
            server.commits.append(files)
            return self._json(
                200,
                {
                    "commitUrl": f"{server.address}/datasets/{REPOSITORY}/commit/{server.sha()}",
                    "commitOid": server.sha(),
                },
            )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
