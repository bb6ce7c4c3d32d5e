"""Objects of an S3 bucket by obstore, which retries, resumes and reads AWS_* variables; and a release published there.

Objects cannot be renamed, so the manifest, put last and only if there is none, makes a version visible. Before any
data, the publisher claims the version by an object next to it, `<version>.publishing`, with the hash of its manifest:
a second publisher of the same content joins, one of other content is refused. The next call resumes an interrupted
one: an object whose size and sha256 (in its metadata) are right is not sent again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, installing
from pipeline.http.hub import Absent
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote.addresses import BLOCK, CONNECT, TIMEOUT, s3_path, web_address
from pipeline.remote.transfer import AlreadyReleased, Meter, Progress

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
CAUSE = re.compile(r"<Code>(\w{1,64})</Code>|status code: (\d{3}[ \w]*)|: ([\w ]+)$", re.MULTILINE)
"""the server's error code, such as SignatureDoesNotMatch, or the HTTP status, or what failed"""
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
            raise UserError(f"{self.address}: {_cause(e)}; {HINT}") from None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self.translate_errors():
            if start and start >= self.objects.head(name)["size"]:  # a range past the end would be refused
                return
            found = self.objects.get(name, options={"range": {"offset": start}} if start else {})
            yield from map(bytes, found.stream(BLOCK))

    def get(self, name: str) -> bytes | None:
        try:
            return b"".join(self.read(name))
        except Absent:
            return None

    def create(self, name: str, data: bytes) -> bool:
        """Put an object if there is none; return whether it did. After a lost answer, the one there may be this one."""
        from obstore.exceptions import AlreadyExistsError

        with self.translate_errors():
            try:
                self.objects.put(name, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            raise Absent from None
        except (PermissionDeniedError, UnauthenticatedError) as e:
            raise UserError(f"{self.address}: access denied ({_cause(e)}); {HINT}") from None
        except BaseError as e:
            if any(sign in str(e) for sign in OTHER_REGION):
                raise UserError(f"{self.address}: the bucket is in another region; set AWS_REGION") from None
            raise TransientError(_cause(e)) from None


def _cause(error: Exception) -> str:
    """Return what failed, in a few words: obstore's messages contain addresses and whole answers of a server."""
    found = CAUSE.search(str(error).partition("\n\nDebug source")[0])
    return next(filter(None, found.groups())).strip() if found else type(error).__name__


class Version(Bucket):
    """The objects of one version, and the claim in the folder above."""

    def __init__(self, address: str, manifest: bytes) -> None:
        super().__init__(address, SILENCE)
        self.manifest, self.mark = manifest, hashlib.sha256(manifest).hexdigest().encode()
        above, _, version = self.address.rpartition("/")
        self.claims, self.claimed = Bucket(above), f"{version}.publishing"

    def is_released(self) -> bool:
        """Return whether this manifest is there; raise AlreadyReleased if another is."""
        manifest = self.get(manifests.NAME)
        if manifest is not None and manifest != self.manifest:
            self.unclaim()
            raise AlreadyReleased
        return manifest is not None

    def claim(self) -> None:
        """Claim the version, or join a publisher of the same content; UserError for one of other content."""
        if self.claims.create(self.claimed, self.mark):
            if self.claims.create(self.claimed, self.mark):
                self.unclaim()
                raise UserError(
                    f"{self.address}: this store ignores the condition of a PUT, so two publishers could mix; send to "
                    "a folder, and copy that"
                )
        elif self.claims.get(self.claimed) not in (self.mark, None):
            raise UserError(
                f"{self.address}: another publisher is at work on this version with other content; if that one was "
                f"given up, delete {self.claims.address}/{self.claimed} and run again"
            )

    def unclaim(self) -> None:
        if self.claims.get(self.claimed) == self.mark:
            with self.claims.translate_errors():
                self.claims.objects.delete(self.claimed)

    def send(self, release: Path, files: list[File], progress: Progress) -> None:
        meter = Meter(sum(f.bytes for f in files), progress)

        def send_one(file: File) -> None:
            if not meter.stopped.is_set():
                if not self.holds(file):
                    self.put_file(file, release / file.path)
                meter.add(file.bytes)

        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                list(pool.map(send_one, files))
            except BaseException:
                meter.stopped.set()
                raise
        if lacking := [f.path for f in files if not self.holds(f)]:
            raise UserError(f"{self.address}: {lacking[0]} changed while it was published; run again")

    def holds(self, file: File) -> bool:
        try:
            with self.translate_errors():
                found = self.objects.get(file.path, options={"head": True})
        except Absent:
            return False
        return (found.meta["size"], found.attributes.get("sha256")) == (file.bytes, file.sha256)

    def put_file(self, file: File, path: Path) -> None:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise UserError(f"{path}: changed while it was published; run again")
        with self.translate_errors():
            self.objects.put(file.path, data, attributes={"sha256": file.sha256}, max_concurrency=2)

    def release(self) -> None:
        """Put the manifest: from here on the version can be fetched."""
        if self.claims.get(self.claimed) != self.mark and not self.is_released():
            raise UserError(f"{self.address}: our claim was deleted while we published; run again")
        if not self.create(manifests.NAME, self.manifest):
            self.is_released()


def push(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    version = Version(f"s3://{s3_path(target)}/{place}", (release / manifests.NAME).read_bytes())
    try:
        if not version.is_released():
            version.claim()
            if not version.is_released():  # by another publisher, meanwhile
                version.send(release, [*manifest.files, *signature.files(release)], progress)
                version.release()
        version.unclaim()
    except Absent:
        raise UserError(f"{version.address}: no such bucket") from None
    except TransientError as e:
        raise UserError(f"{version.address}: {e}; run again to continue") from None
    return version.address
