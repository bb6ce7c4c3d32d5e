"""Read access to releases: one class a kind of address, each with the method `read`.

No secret of an address or of the environment gets into `Store.address` or into an error.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from pipeline.errors import UserError
from pipeline.http import archives
from pipeline.http.retries import TransientError
from pipeline.release.manifest import NAME as MANIFEST
from pipeline.remote.base import BLOCK, CONNECT, TIMEOUT, Absent, hf_path, path_of, scheme_of, web_address

if TYPE_CHECKING:
    import httpx

CLIENTS = {"httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"}
"""packages whose exceptions are failures of the network or of the server"""


class AlreadyReleased(Exception):
    """The version is released already, with other content."""


class Store(Protocol):
    """Read access to the files below one address."""

    address: str  # for messages: without user, password and query

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from byte `start` on; nothing if it ends before.

        Raises:
            Absent: no such file. TransientError: worth another try. UserError: not worth one.
        """


def store(address: str) -> Store:
    """Return the store at `address`: a path, file://, http(s)://, s3://bucket/prefix or hf://datasets/owner/name/path.

    A trailing `manifest.json` is ignored.
    """
    scheme = scheme_of(address)
    if scheme == "s3":
        from pipeline.remote.bucket import Bucket

        return Bucket(address)
    if scheme == "hf":
        return Hub(address)
    return Http(address) if scheme in ("http", "https") else Folder(path_of(address))


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        path = self.path / name
        if path.exists() and not (path.is_file() or path.is_dir()):  # such as a pipe, which may never end
            raise UserError(f"{path}: is no plain file")
        try:
            with path.open("rb") as f:
                f.seek(start)
                while block := f.read(BLOCK):
                    yield block
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Absent from None


class Archive:
    """A release in a zip file of this machine, at its top or in a folder; members are read, and never unpacked."""

    def __init__(self, path: Path, address: str) -> None:
        self.address = address
        self.zip = archives.opened(path, address)
        found = [name for name in self.zip.namelist() if name.rpartition("/")[2] == MANIFEST]
        self.top = min(found, key=len, default=MANIFEST).removesuffix(MANIFEST)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        try:
            member = self.zip.getinfo(self.top + name)
        except KeyError:
            raise Absent from None
        dense = member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        size = archives.PIECE if dense else BLOCK
        at = start
        while True:  # a caller's own errors are raised between two reads, and are not the archive's
            with archives.readable(f"{self.address}: {name}"):
                if at == start:
                    file = self.zip.open(member)
                    file.seek(start)
                if not (block := file.read(size)):
                    file.close()
                    return
            at += len(block)
            yield block


class Http:
    """A folder of a web server; a query (a signature, say) goes with every request."""

    def __init__(self, address: str) -> None:
        from pipeline.http import ranged

        self.url = web_address(address)
        self.address = str(self.url.copy_with(userinfo=b"", query=None))
        self.client = ranged.client(TIMEOUT, CONNECT)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        from pipeline.http.patience import steady
        from pipeline.http.ranged import first_byte, request

        url = self.url.copy_with(path=f"{self.url.path}/{quote(name)}")
        with request(self.client, url, f"{self.address}/{name}", start) as answer:
            if answer.status_code == 416:
                return
            self._refuse(answer, name)
            skip = start - first_byte(answer, start)
            for block in steady(answer.iter_raw()):  # with a size it would buffer bytes, and lose them when cut off
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))

    def _refuse(self, answer: httpx.Response, name: str) -> None:
        code = answer.status_code
        if code in (404, 410):
            raise Absent
        if code in (401, 403):
            raise UserError(
                f"{self.address}: access denied (HTTP {code}); are user and password, or the signature, right?"
            )
        if code not in (200, 206):
            raise UserError(f"{self.address}/{name}: HTTP {code} {answer.reason_phrase}")


class Hub:
    """A path in a dataset repository of the Hugging Face Hub, read in ranges."""

    def __init__(self, address: str) -> None:
        self.fs, self.base = hf(), hf_path(address)
        self.address = f"hf://{self.base}"

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        path = f"{self.base}/{name}"
        with hub_errors(self.address):
            size = int(self.fs.info(path)["size"])
        for at in range(start, size, BLOCK):
            with hub_errors(self.address):
                block = self.fs.cat_file(path, start=at, end=min(at + BLOCK, size))
            yield block


HF_HINT = "is HF_TOKEN, or the login of `hf auth login`, right?"


def hf() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)


@contextmanager
def hub_errors(address: str) -> Iterator[None]:
    """Translate exceptions of the Hub's client into Absent, TransientError or a UserError.

    Of their messages nothing is kept: clients put signed addresses and tokens into them.
    """
    try:
        yield
    except FileNotFoundError:
        raise Absent from None
    except Exception as e:
        if not isinstance(e, OSError) and type(e).__module__.partition(".")[0] not in CLIENTS:
            raise
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(f"{address}: access denied (HTTP {status}); {HF_HINT}") from None
        if status == 404:
            raise Absent from None
        errno = e.errno if isinstance(e, OSError) else None
        raise TransientError(type(e).__name__ if errno is None else os.strerror(errno)) from None
