"""Read access to releases: one class a kind of address, each with the method `read`.

No secret of an address or of the environment gets into `Store.address` or into an error.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pipeline.errors import UserError, one_line
from pipeline.http.retries import TransientError
from pipeline.release.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    import httpx

BLOCK = 4 << 20
TIMEOUT, CONNECT = 60.0, 15.0
"""seconds without a byte, and until there is a connection"""
INVALID = "the address is not valid: its host or port cannot be; write it as https://host/folder"
"""says nothing of the address, which may hold a password"""
CLIENTS = {"httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"}
"""packages whose exceptions are failures of the network or of the server"""


class Absent(Exception):
    """The store has no such file."""


class AlreadyReleased(Exception):
    """The version is released already, with other content."""


class Store(Protocol):
    """Read access to the files below one address."""

    address: str
    """for messages: without user, password and query"""

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


def is_archive(address: str) -> bool:
    """Return whether an address names a zip file, of this machine or of a web server."""
    return scheme_of(address) in ("file", "http", "https") and _split(address).path.lower().endswith(".zip")


def scheme_of(address: str) -> str:
    """Return file, http, https, s3 or hf; UserError for another."""
    scheme = _split(address).scheme.lower() if "://" in address else "file"
    if scheme not in ("file", "http", "https", "s3", "hf"):
        raise UserError(f"cannot use '{scheme}' addresses; use a path, https://, s3:// or hf://datasets/")
    return scheme


def path_of(address: str) -> Path:
    """Return the path that a path or file:// address names."""
    plain = unquote(_split(address).path) if address.lower().startswith("file:") else address
    return Path(_base(plain) or "/")


def s3_path(address: str) -> str:
    """Return bucket[/prefix]; UserError, without the address, if it names no bucket: it may hold keys."""
    path = _base(address.removeprefix("s3://"))
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*", path):
        raise UserError(
            "s3://: the address names no bucket; write s3://bucket/prefix, and give keys as AWS_* variables"
        )
    return path


def hf_path(address: str) -> str:
    """Return datasets/owner/name[@revision][/path]; UserError if the address names no dataset repository."""
    path = _base(address.removeprefix("hf://"))
    if not re.fullmatch(r"datasets/[\w.-]+/[\w.-]+(@[^/]+)?(/.*)?", path):
        raise UserError(f"hf://{path}: names no dataset repository; write hf://datasets/owner/name")
    return path


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
        try:
            self.zip = zipfile.ZipFile(path)
        except (FileNotFoundError, IsADirectoryError):
            raise UserError(f"{address}: no such file") from None
        except zipfile.BadZipFile as e:
            raise UserError(f"{address}: {one_line(e)}") from None
        found = [name for name in self.zip.namelist() if name.rpartition("/")[2] == MANIFEST]
        self.top = min(found, key=len, default=MANIFEST).removesuffix(MANIFEST)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        try:
            with self.zip.open(self.top + name) as f:
                f.seek(start)
                while block := f.read(BLOCK):
                    yield block
        except KeyError:
            raise Absent from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
            raise UserError(f"{self.address}: {name}: {one_line(e)}") from None


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
    """Return the Hugging Face Hub, with the token of the environment or of the login."""
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


def web_address(address: str) -> httpx.URL:
    """Return an http(s) address, without a trailing slash; UserError, without the address, if it is not valid."""
    import httpx

    from pipeline.http.addresses import is_valid

    parts = _split(address)
    try:
        url = httpx.URL(parts._replace(path=_base(parts.path), fragment="").geturl())
        if url.scheme in ("http", "https") and url.host and is_valid(url):
            return url
    except (httpx.InvalidURL, UnicodeError):  # names that IDNA refuses
        pass
    raise UserError(INVALID)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise UserError(INVALID) from None


def _base(path: str) -> str:
    return path.rstrip("/").removesuffix(f"/{MANIFEST}").rstrip("/")
