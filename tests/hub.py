"""A fake Hugging Face Hub: enough to fetch models, and to read and commit to datasets."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants
from webserver import Handler, Server, listening

KIND, REPOSITORY = "(?:models|datasets)", "[^/]+/[^/]+"
DATASET = "datasets/owner/name"


class Repository:
    """Files of each commit, oldest first."""

    def __init__(self, name: str, *commits: dict[str, bytes]) -> None:
        self.name = name
        self.commits = [*commits]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def sha(self, number: int = -1) -> str:
        return hashlib.sha1(f"{self.name} {number % len(self.commits)}".encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.files
        return next((files for i, files in enumerate(self.commits) if self.sha(i) == revision), None)


class Hub(Server):
    """One dataset, which needs a token, and published models."""

    def __init__(self) -> None:
        super().__init__({})
        self.dataset = Repository(DATASET, {})
        self.repositories = {DATASET: self.dataset}
        self.large: dict[str, bytes] = {}
        """hash -> content of large files, which are uploaded before the commit"""
        self.uploads = 0
        self.before_commit: Callable[[], None] = lambda: None
        """hook, called once before the next commit is processed"""
        self.read_only: set[str] = set()
        """repositories that refuse commits"""
        self.fetched: list[str] = []
        """requested files, with their repository"""

    def publish(self, repository: str, folder: Path) -> str:
        name = f"models/{repository}"
        published = self.repositories.setdefault(name, Repository(name))
        published.commits.append(
            {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        )
        return published.sha()

    def answer(self, request: Handler, before: int) -> None:
        path = unquote(request.url)
        if request.command == "PUT":
            return self._upload(request)
        if path == "/api/validate-yaml":
            request.content()
            return request.reply_json(200, {"errors": [], "warnings": []})
        if found := re.fullmatch(f"/api/({KIND}/{REPOSITORY})(?:/(.+))?", path):
            name, rest, act = found[1], found[2] or "revision/main", self._api
        elif found := re.fullmatch(rf"/(datasets/{REPOSITORY})(?:\.git/(info/lfs/.+)|/resolve/(.+))", path):
            name, rest, act = found[1], found[2] or found[3], self._lfs if found[2] else self._file
        elif found := re.fullmatch(f"/({REPOSITORY})/resolve/(.+)", path):
            name, rest, act = f"models/{found[1]}", found[2], self._file
        else:
            return request.reply_json(404, {"error": path})
        if name.startswith("datasets/") and request.headers.get("Authorization") != "Bearer right":
            return request.reply_json(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials")
        if name in self.read_only and request.command == "POST" and rest.startswith("commit"):
            return request.reply_json(403, {"error": "no write access"}, X_Error_Message="no write access")
        repository = self.repositories.get(name)
        if repository is None:
            return request.reply_json(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return act(request, repository, rest)

    def _api(self, request: Handler, repository: Repository, rest: str) -> None:
        name, _, rest = rest.partition("/")
        if name == "preupload":
            paths = [one["path"] for one in json.loads(request.content())["files"]]
            modes = {p: "lfs" if p.endswith(".parquet") else "regular" for p in paths}
            answer = [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]
            return request.reply_json(200, {"files": answer})
        if name == "commit":
            return self._commit(request, repository, [json.loads(line) for line in request.content().splitlines()])
        revision, _, folder = rest.partition("/")
        files = repository.at(revision)
        if name == "paths-info":
            asked = request.content()
            wanted = (
                json.loads(asked)["paths"]
                if asked.startswith(b"{")
                else [unquote(v) for v in re.findall(r"paths=([^&]*)", asked.decode())]
            )
            return request.reply_json(200, [described(p, files[p]) for p in wanted if files and p in files])
        if files is None:
            return request.reply_json(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        if name == "revision":
            sha = repository.sha() if revision == "main" else revision
            about = {"id": repository.name.partition("/")[2], "sha": sha, "siblings": []}
            if "blobs=true" in request.path.lower():
                about["siblings"] = [{"rfilename": p, "size": len(data)} for p, data in files.items()]
            return request.reply_json(200, about)
        return self._tree(request, files, folder)

    def _tree(self, request: Handler, files: Mapping[str, bytes], folder: str) -> None:
        below = {p: p.removeprefix(f"{folder}/" if folder else "") for p in files if p.startswith(folder)}
        if not below:
            return request.reply_json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        recursive = "recursive=true" in request.path.lower()
        listed = [described(p, files[p]) for p, name in below.items() if recursive or "/" not in name]
        return request.reply_json(200, listed)

    def _file(self, request: Handler, repository: Repository, rest: str) -> None:
        revision, _, path = rest.partition("/")
        files = repository.at(revision) or {}
        if path not in files:
            return request.reply_json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        commit = repository.sha() if revision == "main" else revision
        if request.command == "GET":
            self.fetched.append(f"{repository.name.partition('/')[2]}/{path}")
        etag = f'"{described(path, files[path])["oid"]}"'
        return request.reply_file(files[path], ETag=etag, X_Repo_Commit=commit)

    def _lfs(self, request: Handler, repository: Repository, rest: str) -> None:
        def one(wanted: dict[str, object]) -> dict[str, object]:
            href = f"{self.address}/upload/{wanted['oid']}"
            actions = {} if wanted["oid"] in self.large else {"actions": {"upload": {"href": href}}}
            return {"oid": wanted["oid"], "size": wanted["size"]} | actions

        request.reply_json(200, {"objects": [one(wanted) for wanted in json.loads(request.content())["objects"]]})

    def _upload(self, request: Handler) -> None:
        content = request.content()
        self.large[hashlib.sha256(content).hexdigest()] = content
        self.uploads += 1
        request.reply_json(200, {})

    def _commit(self, request: Handler, repository: Repository, lines: list[dict[str, dict[str, str]]]) -> None:
        interfere, self.before_commit = self.before_commit, lambda: None
        interfere()
        with self.lock:
            if lines[0]["value"].get("parentCommit", repository.sha()) != repository.sha():
                return request.reply_json(412, {"error": "the head has moved"})
            files = dict(repository.files)
            for line in lines[1:]:
                value, large = line["value"], line["key"] == "lfsFile"
                files[value["path"]] = self.large[value["oid"]] if large else base64.b64decode(value["content"])
            repository.commits.append(files)
            url = f"{self.address}/{repository.name}/commit/{repository.sha()}"
            return request.reply_json(200, {"commitUrl": url, "commitOid": repository.sha()})


def described(path: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub to the client of this process, with an empty cache and a valid token."""
    with listening(Hub()) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "right")
        yield server
