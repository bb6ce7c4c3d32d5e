"""Read access to releases: one class a kind of address, each with the method `read`.

No secret of an address or of the environment gets into `Store.address` or into an error.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pipeline.errors import UserError, installing
from pipeline.http import archives
from pipeline.http.retries import TransientError
from pipeline.release.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    import httpx

BLOCK = 4 << 20
TIMEOUT, CONNECT = 60.0, 15.0
"""seconds without a byte, and until there is a connection"""
INVALID = "the address is not valid: its host or port cannot be; write it as https://host/folder"
"""says nothing of the address, which may hold a password"""
CLIENTS = {
    "aiobotocore", "aiohttp", "botocore", "httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "requests",
    "urllib3",
}  # fmt: skip
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
        return Remote(s3(), s3_path(address), "s3://", S3_HINT)
    if scheme == "hf":
        return Remote(hf(), hf_path(address), "hf://", HF_HINT)
    return Http(address) if scheme in ("http", "https") else Folder(path_of(address))


def is_archive(address: str) -> bool:
    """Return whether an address names a zip file, of this machine or of a web server."""
    if not _split(address).path.lower().endswith(".zip"):
        return False
    scheme = scheme_of(address)
    return scheme in ("http", "https") or (scheme == "file" and not path_of(address).is_dir())


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
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", path):
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
        import httpx

        from pipeline.http import ranged
        from pipeline.http.addresses import is_valid

        parts = _split(address)
        try:
            self.url = httpx.URL(parts._replace(path=_base(parts.path), fragment="").geturl())
            self.address = str(self.url.copy_with(userinfo=b"", query=None))
            valid = is_valid(self.url) and bool(self.url.host)
        except (httpx.InvalidURL, UnicodeError):  # names that IDNA refuses
            valid = False
        if not valid:
            raise UserError(INVALID)
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


class Remote:
    """A prefix of an fsspec file system, read in ranges."""

    def __init__(self, fs: Any, base: str, scheme: str, hint: str) -> None:
        self.fs, self.base, self.hint = fs, base, hint
        self.address = f"{scheme}{base}"

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield blocks of a file; see Store."""
        path = f"{self.base}/{name}"
        with translated_errors(self.address, self.hint):
            size = int(self.fs.info(path)["size"])
        for at in range(start, size, BLOCK):
            with translated_errors(self.address, self.hint):
                block = self.fs.cat_file(path, start=at, end=min(at + BLOCK, size))
            yield block


S3_HINT = "are AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, right?"
HF_HINT = "is HF_TOKEN, or the login of `hf auth login`, right?"


def s3() -> Any:
    """Return S3 as the environment describes it (AWS_*), anonymous where it names no credentials."""
    try:
        import s3fs
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        raise UserError(f"s3:// needs another package: {installing('s3')}") from None
    try:
        anonymous = Session().get_credentials() is None
    except BotoCoreError as e:
        raise UserError(f"s3://: {type(e).__name__}; {S3_HINT}") from None
    return s3fs.S3FileSystem(anon=anonymous, skip_instance_cache=True, use_listings_cache=False)


def hf() -> Any:
    """Return the Hugging Face Hub, with the token of the environment or of the login."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)


@contextmanager
def translated_errors(address: str, hint: str) -> Iterator[None]:
    """Translate a remote file system's exceptions into Absent, TransientError or a UserError.

    Of their messages only short codes are kept: clients put signed addresses and keys into them.
    """
    try:
        yield
    except FileNotFoundError:
        raise Absent from None
    except PermissionError as e:
        raise UserError(f"{address}: access denied ({code_of(e)}); {hint}") from None
    except Exception as e:
        if not isinstance(e, OSError) and type(e).__module__.partition(".")[0] not in CLIENTS:
            raise
        if type(e).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
            raise UserError(f"{address}: {type(e).__name__}; {hint}") from None
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(f"{address}: access denied (HTTP {status}); {hint}") from None
        if status == 404:
            raise Absent from None
        raise TransientError(code_of(e)) from None


def code_of(error: BaseException) -> str:
    """Return the server's error code, such as SignatureDoesNotMatch, or the exception's class."""
    for e in (error, error.__cause__):
        answer = getattr(e, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", type(error).__name__))
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise UserError(INVALID) from None


def _base(path: str) -> str:
    return path.rstrip("/").removesuffix(f"/{MANIFEST}").rstrip("/")
