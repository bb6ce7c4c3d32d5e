"""Addresses of releases and read access to them, one class per scheme; addresses in messages contain no secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from alignrec.pipeline import io
from alignrec.pipeline.io import archives
from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.web.retries import Absent, TransientError, retry

if TYPE_CHECKING:
    import httpx

SAMPLE_FILE = "sample.zip"  # small release shipped with the package, for use offline
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*")
DATASET = re.compile(r"datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?/?(.*)")
# must not echo the address, which may contain a password
INVALID = "the address is not valid: its host or port cannot be; write it as https://host/folder"

BLOCK = 4 << 20  # bytes per read
TIMEOUT, CONNECT = 60.0, 15.0  # seconds: between bytes, to connect
SILENCE = 120.0  # seconds between bytes for S3, and to send a part of 5 MB
TRIES = 6  # attempts per small file; for large files, consecutive attempts with little progress
IDENTITY = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip  # without any of these variables, requests are anonymous
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
KEYS = (
    "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right? "
    'eval "$(aws configure export-credentials --format env)" sets them from a profile'
)
CLOSED = "127.0.0.1:1"  # address of a "proxy" that refuses every connection
OTHER_REGION = ("configured region", "AuthorizationHeaderMalformed", "PermanentRedirect")

Progress = Callable[[int, int], None]  # called with (bytes done, total bytes)


def scheme_of(address: str) -> str:
    scheme = address.partition("://")[0].lower() if "://" in address else "file"
    if scheme not in ("file", "http", "https", "s3", "hf"):
        raise UserError(
            f"cannot use '{scheme}' addresses; use a path, https://, s3:// or hf://datasets/"
        )
    return scheme


def local_path(address: str) -> Path | None:
    """Return the path of a local address, for `sample` that of the bundled zip file; None for a remote address."""
    if scheme_of(address) != "file":
        return None
    if address == "sample" and not Path(address).exists():
        return Path(str(files("alignrec"))) / SAMPLE_FILE
    return Path(unquote(urlsplit(address).path) if address.lower().startswith("file:") else address)


def hub_parts(address: str) -> tuple[str, str, str]:
    """Split hf://datasets/owner/name[@revision][/path] into repository, revision and path; UserError if invalid."""
    path = address.partition("://")[2].rstrip("/")
    if not (found := DATASET.fullmatch(path)):
        raise UserError(f"hf://{path}: names no dataset repository; write hf://datasets/owner/name")
    return found[1], unquote(found[2] or "main"), found[3]


def web_address(address: str) -> httpx.URL:
    """Normalise an http(s) address, without trailing slash; UserError, which does not echo it, if invalid."""
    from alignrec.pipeline.web.client import Blocked, parse_url

    try:
        parts = urlsplit(address)
        return parse_url(parts._replace(path=parts.path.rstrip("/"), fragment="").geturl())
    except (Blocked, ValueError):
        raise UserError(INVALID) from None


def read_small(source: Store, name: str, limit: int) -> bytes:
    """Read a whole file, or slightly more than `limit` bytes of a larger one, which the caller must reject."""

    def read() -> bytes:
        data = bytearray()
        for block in source.read(name):
            data += block
            if len(data) > limit:
                break
        return bytes(data)

    try:
        return retry(read, TRIES)
    except TransientError as e:
        raise UserError(f"{source.address}: cannot be reached ({e}); run again later") from None


class Folder:
    """A release in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        path = self.path / name
        if path.is_dir() or not path.exists():
            raise Absent(f"{path}: no such file")
        with io.require_plain(path).open("rb") as f:
            f.seek(start)
            while block := f.read(BLOCK):
                yield block


class Archive:
    """A release in a local zip file, at the top or in a folder; members are streamed, not unpacked."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.zip = archives.open_zip(path)
        found = [name for name in self.zip.namelist() if name.rpartition("/")[2] == manifests.NAME]
        self.top = min(found, key=len, default=manifests.NAME).removesuffix(manifests.NAME)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        shown = f"{self.address}: {name}"
        try:
            member = self.zip.getinfo(self.top + name)
        except KeyError:
            raise Absent(f"{shown}: no such file") from None
        return archives.read_member(self.zip, member, shown, start)


class Http:
    """A folder on a web server; the address's query (such as a signature) is sent with every request."""

    def __init__(self, address: str) -> None:
        from alignrec.pipeline.web.client import open_client

        self.url = web_address(address)
        self.address = str(self.url.copy_with(userinfo=b"", query=None))
        self.client = open_client(TIMEOUT, CONNECT)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        from alignrec.pipeline.web.client import first_byte, read_body, request_file

        folder = (
            self.url.raw_path.partition(b"?")[0].decode("ascii").rstrip("/")
        )  # still percent-encoded
        url = self.url.copy_with(path=f"{folder}/{quote(name)}")
        with request_file(self.client, url, f"{self.address}/{name}", start) as response:
            if response.status_code == 416:
                return
            skip = start - first_byte(response, start)
            for block in read_body(response):
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))


class Hub(Http):
    """A path in a dataset repository of the Hugging Face Hub, with the token of the environment or login."""

    def __init__(self, address: str) -> None:
        from huggingface_hub import constants, get_token

        repository, revision, path = hub_parts(address)
        super().__init__(
            f"{constants.ENDPOINT}/datasets/{repository}/resolve/{quote(revision, safe='')}/{path}"
        )
        self.address = address
        if token := get_token():
            self.client.headers["Authorization"] = f"Bearer {token}"


class Bucket:
    """Objects under an S3 prefix; UserError if access is denied, TransientError after obstore's own retries."""

    def __init__(self, address: str) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise UserError(f"s3:// needs another package: {installing('s3')}") from None
        from alignrec.pipeline.web.client import is_proxied

        path = address.partition("://")[2].rstrip("/")
        if not BUCKET.fullmatch(path):  # must not echo the address, which may contain keys
            raise UserError(
                "s3://: the address names no bucket; write s3://bucket/prefix, and keys as AWS_* variables"
            )
        self.address = f"s3://{path}"
        bucket, _, prefix = path.partition("/")
        config: Any = {} if any(map(os.environ.get, IDENTITY)) else {"skip_signature": True}
        hosts = _amazon_hosts()
        if endpoint := next(filter(None, map(os.environ.get, ENDPOINTS)), None):
            try:
                url = web_address(endpoint)
            except UserError as e:
                raise UserError(f"AWS_ENDPOINT_URL: {e}") from None
            config["aws_endpoint_url_s3"] = str(url)
            hosts.append(url.host)
        seconds = {"connect_timeout": CONNECT, "read_timeout": SILENCE, "timeout": 3600.0}
        client: Any = {name: timedelta(seconds=value) for name, value in seconds.items()}
        client["allow_http"] = config.get("aws_endpoint_url_s3", "").startswith("http:")
        # obstore follows every redirect, with the session token: all hosts but the service's own are made unreachable
        if not is_proxied():
            client |= {"proxy_url": f"http://{CLOSED}", "proxy_excludes": ",".join(hosts)}
        try:  # bulk deletion is disabled, as not every server supports it
            options: Any = {"config": config, "client_options": client, "disable_bulk_delete": True}
            self.objects = S3Store(bucket, prefix=prefix or None, **options)
        except BaseError as e:
            raise UserError(
                f"{self.address}: invalid settings ({type(e).__name__}); {KEYS}"
            ) from None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self.translate_errors():
            if (
                start and start >= self.objects.head(name)["size"]
            ):  # a range beyond the end is an error
                return
            found = self.objects.get(name, options={"range": {"offset": start}} if start else {})
            yield from map(bytes, found.stream(BLOCK))

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            raise Absent(f"{self.address}: no such bucket or object") from None
        except (PermissionDeniedError, UnauthenticatedError) as e:
            raise UserError(f"{self.address}: access denied ({type(e).__name__}); {KEYS}") from None
        except BaseError as e:
            if any(sign in str(e) for sign in OTHER_REGION):
                raise UserError(
                    f"{self.address}: the bucket is in another region; set AWS_REGION"
                ) from None
            if f" {CLOSED}," in str(e):  # the message lists causes, one socket address per line
                raise UserError(
                    f"{self.address}: the server redirects to another host, which is refused"
                ) from None
            raise TransientError(type(e).__name__) from None  # the message may contain signed URLs


# read(name, start) yields a file's bytes; Absent if it does not exist, TransientError if a retry may help;
# `address` is for messages: without credentials and query
Store = Folder | Archive | Http | Bucket


def open_store(address: str) -> Store:
    path, scheme = local_path(address), scheme_of(address)
    if scheme == "s3":
        return Bucket(address)
    if path is None:
        return Hub(address) if scheme == "hf" else Http(address)
    return Archive(path) if path.suffix.lower() == ".zip" and not path.is_dir() else Folder(path)


def _amazon_hosts() -> list[str]:
    """Return Amazon's hosts of the region: S3, and those that the variables of an identity need."""
    regions = {*filter(None, map(os.environ.get, ("AWS_REGION", "AWS_DEFAULT_REGION")))} or {
        "us-east-1"
    }
    hosts = [f"s3.{region}.amazonaws.com" for region in regions]
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        hosts += [f"sts.{region}.amazonaws.com" for region in regions]
    if os.environ.get("AWS_SKIP_SIGNATURE"):
        hosts.append("169.254.169.254")  # "false" asks EC2 for the role of the machine
    if os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        hosts.append("169.254.170.2")
    if container := os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        hosts.append(urlsplit(container).hostname or "")
    return hosts
