"""Read access to releases: one class per kind of address, without secrets in `Store.address` and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pipeline.errors import UserError
from pipeline.http import archives, hub
from pipeline.http.hub import Absent
from pipeline.release.manifest import NAME as MANIFEST
from pipeline.remote.addresses import BLOCK, CONNECT, TIMEOUT, hf_path, is_archive, path_of, scheme_of, web_address


class Store(Protocol):
    """Read access to the files below one address."""

    address: str  # for messages: without user, password and query

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from byte `start` on; Absent: no such file, TransientError: worth another try."""


def store(address: str) -> Store:
    scheme = scheme_of(address)
    if scheme == "s3":
        from pipeline.remote.s3 import Bucket

        return Bucket(address)
    if scheme == "hf":
        return Hub(address)
    if scheme in ("http", "https"):
        return Http(address)
    return Archive(path_of(address)) if is_archive(address) else Folder(path_of(address))


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        path = self.path / name
        if path.exists() and not (path.is_file() or path.is_dir()):  # such as a pipe, which may never end
            raise UserError(f"{path}: not a plain file")
        try:
            with path.open("rb") as f:
                f.seek(start)
                while block := f.read(BLOCK):
                    yield block
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Absent from None


class Archive:
    """A release in a zip file of this machine, at its top or in a folder; members are read, and never unpacked."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.zip = archives.open_zip(path)
        found = [name for name in self.zip.namelist() if name.rpartition("/")[2] == MANIFEST]
        self.top = min(found, key=len, default=MANIFEST).removesuffix(MANIFEST)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        try:
            member = self.zip.getinfo(self.top + name)
        except KeyError:
            raise Absent from None
        return archives.read_member(self.zip, member, f"{self.address}: {name}", start)


class Http:
    """A folder of a web server; a query (a signature, say) goes with every request."""

    def __init__(self, address: str) -> None:
        from pipeline.http.client import open_client

        self.url = web_address(address)
        self.address = str(self.url.copy_with(userinfo=b"", query=None))
        self.client = open_client(TIMEOUT, CONNECT)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        from pipeline.http.client import first_byte, request
        from pipeline.http.connections import steady

        url = self.url.copy_with(path=f"{self.url.path}/{quote(name)}")
        with request(self.client, url, f"{self.address}/{name}", start) as answer:
            if answer.status_code == 416:
                return
            if (code := answer.status_code) in (404, 410):
                raise Absent
            if code in (401, 403):
                hint = "are user and password, or the signature, right?"
                raise UserError(f"{self.address}: access denied (HTTP {code}); {hint}")
            if code not in (200, 206):
                raise UserError(f"{self.address}/{name}: HTTP {code} {answer.reason_phrase}")
            skip = start - first_byte(answer, start)
            for block in steady(answer.iter_raw()):  # with a size it would buffer bytes, and lose them when cut off
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))


class Hub:
    """A path in a dataset repository of the Hugging Face Hub, read in ranges."""

    def __init__(self, address: str) -> None:
        self.fs, self.base = hub.file_system(), hf_path(address)
        self.address = f"hf://{self.base}"

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        path = f"{self.base}/{name}"
        with hub.errors(self.address):
            size = int(self.fs.info(path)["size"])
        for at in range(start, size, BLOCK):
            with hub.errors(self.address):
                block = self.fs.cat_file(path, start=at, end=min(at + BLOCK, size))
            yield block
