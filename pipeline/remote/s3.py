"""Objects of an S3 bucket by obstore, which retries, resumes and reads AWS_* variables; and a release uploaded there.

Objects cannot be renamed, so the manifest, put last, makes a version visible. Before any data, a publisher claims the
version for its content: by an object next to it, `<version>.sha256`, with the hash of the manifest, which stays. A
second publisher of the same content joins, one of other content is refused. The next call resumes an interrupted one:
an object whose size and sha256 (in its metadata) are right is not sent again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, installing
from pipeline.http.retries import Absent, TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote.addresses import s3_path, web_address
from pipeline.remote.stores import BLOCK, CONNECT, TIMEOUT, Meter, Progress

WORKERS = 4  # files sent at a time; each is in memory
SILENCE = 600.0  # seconds for sending a part of 5 MB, of at most eight at a time
LONGEST = timedelta(hours=1)  # of a request that makes progress
IDENTITY = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip
"""variables that choose how requests are signed; without one of them they are anonymous"""
HINT = (
    "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right? "
    'eval "$(aws configure export-credentials --format env)" sets them from a profile'
)
OTHER_REGION = ("configured region", "AuthorizationHeaderMalformed", "PermanentRedirect")


class Bucket:
    """The objects below an address; UserError: access denied, TransientError: a failure after obstore's retries."""

    def __init__(self, address: str, silence: float = TIMEOUT) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise UserError(f"s3:// needs another package: {installing('s3')}") from None
        path = s3_path(address)
        self.address = f"s3://{path}"
        bucket, _, prefix = path.partition("/")
        config: Any = {} if any(map(os.environ.get, IDENTITY)) else {"skip_signature": True}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            try:
                config["aws_endpoint_url_s3"] = str(web_address(endpoint))
            except UserError as e:
                raise UserError(f"AWS_ENDPOINT_URL: {e}") from None
        try:
            self.objects = S3Store(
                bucket, prefix=prefix or None, config=config, disable_bulk_delete=True,  # which not every server knows
                client_options={
                    "allow_http": config.get("aws_endpoint_url_s3", "").startswith("http:"),
                    "connect_timeout": timedelta(seconds=CONNECT), "read_timeout": timedelta(seconds=silence),
                    "timeout": LONGEST,
                },
            )  # fmt: skip
        except BaseError as e:
            raise UserError(f"{self.address}: invalid settings ({type(e).__name__}); {HINT}") from None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self.translate_errors():
            if start and start >= self.objects.head(name)["size"]:  # a range past the end would be refused
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
            raise UserError(f"{self.address}: access denied ({type(e).__name__}); {HINT}") from None
        except BaseError as e:
            if any(sign in str(e) for sign in OTHER_REGION):
                raise UserError(f"{self.address}: the bucket is in another region; set AWS_REGION") from None
            raise TransientError(type(e).__name__) from None  # its message may hold signed addresses


def upload(release: Path, manifest: Manifest, address: str, progress: Progress) -> None:
    """Upload a release that is not there yet; UserError: the version is claimed for other content."""
    version, content = Bucket(address, SILENCE), manifests.read(release)
    above, _, name = version.address.rpartition("/")
    claim, mark = (Bucket(above), f"{name}.sha256"), hashlib.sha256(content).hexdigest().encode()
    _claim(*claim, mark)
    files = [*manifest.files, *signature.files(release)]
    meter = Meter(sum(f.bytes for f in files), progress)

    def send(file: File) -> None:
        if not _holds(version, file):
            _put(version, file, release / file.path)
        meter.add(file.bytes)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(send, files))
    if _read(*claim) != mark:
        raise UserError(f"{version.address}: our claim was deleted while we published; run again")
    with version.translate_errors():
        version.objects.put(manifests.NAME, content)


def _claim(bucket: Bucket, name: str, mark: bytes) -> None:
    """Create the object that says which content a version has, unless it is there with the same content."""
    if not _is_created(bucket, name, mark):
        if _read(bucket, name) != mark:
            raise UserError(
                f"{bucket.address}: another publisher is at work on this version with other content; if that one was "
                f"given up, delete {bucket.address}/{name} and run again"
            )
    elif _is_created(bucket, name, mark):
        bucket.objects.delete(name)
        raise UserError(
            f"{bucket.address}: this store ignores the condition of a PUT, so two publishers could mix; send to a "
            "folder, and copy that"
        )


def _is_created(bucket: Bucket, name: str, content: bytes) -> bool:
    from obstore.exceptions import AlreadyExistsError

    with bucket.translate_errors(), suppress(AlreadyExistsError):
        bucket.objects.put(name, content, mode="create")
        return True
    return False


def _read(bucket: Bucket, name: str) -> bytes:
    with suppress(Absent):
        return b"".join(bucket.read(name))
    return b""


def _holds(version: Bucket, file: File) -> bool:
    with suppress(Absent), version.translate_errors():
        found = version.objects.get(file.path, options={"head": True})
        return bool((found.meta["size"], found.attributes.get("sha256")) == (file.bytes, file.sha256))
    return False


def _put(version: Bucket, file: File, path: Path) -> None:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{path}: changed while it was published; run again")
    with version.translate_errors():
        version.objects.put(file.path, data, attributes={"sha256": file.sha256}, max_concurrency=2)
