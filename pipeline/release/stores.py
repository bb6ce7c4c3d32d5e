"""Addresses of releases and read access to them, one class per scheme.

Addresses in messages contain no secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from alignrec.pipeline import io
from alignrec.pipeline.io import archives
from alignrec.pipeline.io.errors import Absent, UserError, installing
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import SAMPLE
from alignrec.pipeline.web.retries import TransientError, retry

if TYPE_CHECKING:
    import httpx

SAMPLE_FILE = "sample.zip"  # small release shipped with the package, for use offline
BUCKET_PATH = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*")
HUB_PATH = re.compile(r"datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?/?(.*)")
# must not echo the address, which may contain a password
INVALID_ADDRESS = (
    "the address is not valid: its host or port cannot be; write it as https://host/folder"
)

BYTES_PER_READ = 4 << 20
TIMEOUT_SECONDS = 60.0  # between bytes
CONNECT_SECONDS = 15.0
S3_READ_SECONDS = 120.0  # between bytes, and to send a part of 5 MB
S3_REQUEST_SECONDS = 3600.0
# per small file; for large files, consecutive attempts with little progress
MAX_ATTEMPTS = 6
IDENTITY_VARIABLES = (  # without any of them, requests are anonymous
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SKIP_SIGNATURE",
)
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
KEYS_HINT = (
    "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right? "
    'eval "$(aws configure export-credentials --format env)" sets them from a profile'
)
CLOSED_PROXY = "127.0.0.1:1"  # refuses every connection
# parts of messages of obstore
OTHER_REGION_SIGNS = ("configured region", "AuthorizationHeaderMalformed", "PermanentRedirect")

Progress = Callable[[int, int], None]  # called with (bytes done, total bytes)


def scheme_of(address: str) -> str:
    scheme = address.partition("://")[0].lower() if "://" in address else "file"
    if scheme not in ("file", "http", "https", "s3", "hf"):
        raise UserError(
            f"cannot use '{scheme}' addresses; use a path, https://, s3:// or hf://datasets/"
        )
    return scheme


def local_path(address: str) -> Path | None:
    """Return the path of a local address, for `sample` the bundled zip file; None if remote."""
    if scheme_of(address) != "file":
        return None
    if address == SAMPLE and not Path(address).exists():
        return Path(str(files("alignrec"))) / SAMPLE_FILE
    if address.lower().startswith("file:"):
        address = unquote(urlsplit(address).path)
    return Path(address)


def hub_parts(address: str) -> tuple[str, str, str]:
    """Split hf://datasets/owner/name[@revision][/path] into repository, revision and path."""
    path = address.partition("://")[2].rstrip("/")
    match = HUB_PATH.fullmatch(path)
    if match is None:
        raise UserError(f"hf://{path}: names no dataset repository; write hf://datasets/owner/name")
    repository, revision, folder = match.groups()
    return repository, unquote(revision or "main"), folder


def web_address(address: str) -> httpx.URL:
    """Normalise an http(s) address, without trailing slash.

    Raises UserError, which does not echo it, if it is invalid.
    """
    from alignrec.pipeline.web.client import Blocked, parse_url

    try:
        parts = urlsplit(address)
        return parse_url(parts._replace(path=parts.path.rstrip("/"), fragment="").geturl())
    except (Blocked, ValueError):
        raise UserError(INVALID_ADDRESS) from None


def read_small(source: Store, name: str, limit: int) -> bytes:
    """Read a whole file, or slightly more than `limit` bytes, which the caller must reject."""

    def read() -> bytes:
        data = bytearray()
        for block in source.read(name):
            data += block
            if len(data) > limit:
                break
        return bytes(data)

    try:
        return retry(read, MAX_ATTEMPTS)
    except TransientError as e:
        raise UserError(f"{source.address}: cannot be reached ({e}); run again later") from None


class Folder:
    """A release in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        path = self.path / name
        if path.is_dir() or not path.exists():
            raise Absent(f"{path}: no such file")
        with io.require_plain(path).open("rb") as f:
            f.seek(start)
            while block := f.read(BYTES_PER_READ):
                yield block


class Archive:
    """A release in a local zip file, at the top or in a folder; members are streamed."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.zip = archives.open_zip(path)
        names = self.zip.namelist()
        paths = [name for name in names if name.rpartition("/")[2] == manifests.MANIFEST_FILE]
        above, separator, _ = min(paths, key=len, default="").rpartition("/")
        self.top = above + separator

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        label = f"{self.address}: {name}"
        try:
            member = self.zip.getinfo(self.top + name)
        except KeyError:
            raise Absent(f"{label}: no such file") from None
        return archives.read_member(self.zip, member, label, start)


class Http:
    """A folder on a web server; the address's query (a signature) is sent with every request."""

    def __init__(self, address: str) -> None:
        from alignrec.pipeline.web.client import open_client

        self.url = web_address(address)
        self.address = str(self.url.copy_with(userinfo=b"", query=None))
        self.client = open_client(TIMEOUT_SECONDS, CONNECT_SECONDS)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        from alignrec.pipeline.web.client import first_byte, read_body, request_file

        path, _, _ = self.url.raw_path.partition(b"?")
        folder = path.decode("ascii").rstrip("/")  # still percent-encoded
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
    """A path in a dataset repository of the Hugging Face Hub, with the user's token."""

    def __init__(self, address: str) -> None:
        from huggingface_hub import constants, get_token

        repository, revision, path = hub_parts(address)
        revision = quote(revision, safe="")
        super().__init__(f"{constants.ENDPOINT}/datasets/{repository}/resolve/{revision}/{path}")
        self.address = address
        if token := get_token():
            self.client.headers["Authorization"] = f"Bearer {token}"


class Bucket:
    """Objects under an S3 prefix.

    Raises UserError if access is denied, TransientError after obstore's own retries.
    """

    def __init__(self, address: str) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise UserError(f"s3:// needs another package: {installing('s3')}") from None

        path = address.partition("://")[2].rstrip("/")
        if not BUCKET_PATH.fullmatch(path):  # must not echo the address, which may contain keys
            raise UserError(
                "s3://: the address names no bucket; write s3://bucket/prefix, and keys as AWS_* "
                "variables"
            )
        self.address = f"s3://{path}"
        bucket, _, prefix = path.partition("/")
        endpoint = _read_endpoint()
        options: Any = {
            "config": _s3_config(endpoint),
            "client_options": _client_options(endpoint),
            "disable_bulk_delete": True,  # not every server supports it
        }
        try:
            self.objects = S3Store(bucket, prefix=prefix or None, **options)
        except BaseError as e:
            raise UserError(
                f"{self.address}: invalid settings ({type(e).__name__}); {KEYS_HINT}"
            ) from None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self.translate_errors():
            if (
                start and start >= self.objects.head(name)["size"]
            ):  # a range beyond the end is an error
                return
            options: Any = {"range": {"offset": start}} if start else {}
            stored = self.objects.get(name, options=options)
            yield from map(bytes, stored.stream(BYTES_PER_READ))

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            raise Absent(f"{self.address}: no such bucket or object") from None
        except (PermissionDeniedError, UnauthenticatedError) as e:
            raise UserError(
                f"{self.address}: access denied ({type(e).__name__}); {KEYS_HINT}"
            ) from None
        except BaseError as e:
            message = str(e)
            if any(sign in message for sign in OTHER_REGION_SIGNS):
                raise UserError(
                    f"{self.address}: the bucket is in another region; set AWS_REGION"
                ) from None
            if f" {CLOSED_PROXY}," in message:  # it lists causes, one socket address per line
                raise UserError(
                    f"{self.address}: the server redirects to another host, which is refused"
                ) from None
            raise TransientError(type(e).__name__) from None  # the message may contain signed URLs


# read(name, start) yields a file's bytes; Absent if it does not exist, TransientError if a retry
# may help; `address` is for messages: without credentials and query
Store = Folder | Archive | Http | Bucket


def open_store(address: str) -> Store:
    scheme = scheme_of(address)
    if scheme == "s3":
        return Bucket(address)
    if scheme == "hf":
        return Hub(address)
    path = local_path(address)
    if path is None:
        return Http(address)
    if path.suffix.lower() == ".zip" and not path.is_dir():
        return Archive(path)
    return Folder(path)


def _read_endpoint() -> httpx.URL | None:
    address = next(iter(_read_variables(ENDPOINT_VARIABLES)), None)
    if address is None:
        return None
    try:
        return web_address(address)
    except UserError as e:
        raise UserError(f"AWS_ENDPOINT_URL: {e}") from None


def _s3_config(endpoint: httpx.URL | None) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if not _read_variables(IDENTITY_VARIABLES):
        config["skip_signature"] = True
    if endpoint is not None:
        config["aws_endpoint_url_s3"] = str(endpoint)
    return config


def _client_options(endpoint: httpx.URL | None) -> dict[str, Any]:
    from alignrec.pipeline.web.client import is_proxied

    hosts = _amazon_hosts()
    if endpoint is not None:
        hosts.append(endpoint.host)
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=S3_READ_SECONDS),
        "timeout": timedelta(seconds=S3_REQUEST_SECONDS),
        "allow_http": endpoint is not None and endpoint.scheme == "http",
    }
    # obstore follows every redirect, with the session token: all hosts but the service's own are
    # made unreachable
    if not is_proxied():
        options["proxy_url"] = f"http://{CLOSED_PROXY}"
        options["proxy_excludes"] = ",".join(hosts)
    return options


def _read_variables(names: Iterable[str]) -> list[str]:
    """Return the values of those environment variables that are set."""
    return list(filter(None, map(os.environ.get, names)))


def _amazon_hosts() -> list[str]:
    """Return Amazon's hosts of the region: S3, and those that an identity's variables need."""
    regions = set(_read_variables(REGION_VARIABLES)) or {"us-east-1"}
    hosts = [f"s3.{region}.amazonaws.com" for region in regions]
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        hosts += [f"sts.{region}.amazonaws.com" for region in regions]
    if os.environ.get("AWS_SKIP_SIGNATURE"):
        hosts.append("169.254.169.254")  # "false" asks EC2 for the role of the machine
    if os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        hosts.append("169.254.170.2")
    container = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if container:
        hosts.append(urlsplit(container).hostname or "")
    return hosts
