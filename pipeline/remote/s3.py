"""Uploads a release to an S3 bucket.

Objects cannot be renamed, so the manifest, put last and only where there is none, makes a version visible. Before any
data, the publisher claims the version by an object beside it, `<version>.publishing`, that holds the hash of its
manifest: a second publisher of the same content joins, one of other content is refused. An interrupted call is
continued by the next: an object whose size and sha256 (kept in its metadata) are right is not sent again.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote import stores
from pipeline.remote.fetch import Meter, Progress
from pipeline.remote.stores import Absent, AlreadyReleased

WORKERS = 4
"""files at a time; each is in memory"""
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
"""codes of S3 for an object that exists already"""


def push(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    """Publish a verified release; see push.push.

    Args:
        release: its folder.
        manifest: of it.
        target: s3://bucket or s3://bucket/prefix.
        place: <dataset>/<version>.
        progress: see Progress.
    """
    version = Version(f"s3://{stores.s3_path(target)}/{place}", (release / manifests.NAME).read_bytes())
    try:
        if not version.is_released():
            version.claim()
            if not version.is_released():  # by another publisher, meanwhile
                _send(release, [*manifest.files, *signature.files(release)], version, progress)
                version.release()
        version.unclaim()
    except Absent:
        raise UserError(f"{version.address}: no such bucket") from None
    except TransientError as e:
        raise UserError(f"{version.address}: {e}; run again to continue") from None
    return version.address


def _send(release: Path, files: list[File], version: Version, progress: Progress) -> None:
    meter = Meter(sum(f.bytes for f in files), progress)

    def one(file: File) -> None:
        if not meter.stopped.is_set():
            if not version.holds(file):
                version.put(file, release / file.path)
            meter.add(file.bytes)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            list(pool.map(one, files))
        except BaseException:
            meter.stopped.set()
            raise
    if lacking := [f.path for f in files if not version.holds(f)]:
        raise UserError(f"{version.address}: {lacking[0]} changed while it was published; run again")


class Version:
    """The objects of one version, and the claim beside them."""

    def __init__(self, address: str, manifest: bytes) -> None:
        self.fs = stores.s3()
        self.address, self.manifest = address, manifest
        self.base = address.removeprefix("s3://")
        self.visible, self.claimed = f"{self.base}/{manifests.NAME}", f"{self.base}.publishing"
        self.mark = hashlib.sha256(manifest).hexdigest().encode()

    def is_released(self) -> bool:
        """Return whether this manifest is there; raise AlreadyReleased if another is."""
        manifest = self._get(self.visible)
        if manifest is not None and manifest != self.manifest:
            self.unclaim()
            raise AlreadyReleased
        return manifest is not None

    def claim(self) -> None:
        """Claim the version, or join a publisher of the same content."""
        if not self._create(self.claimed, self.mark) and self._get(self.claimed) not in (self.mark, None):
            raise UserError(
                f"{self.address}: another publisher is at work on this version with other content; if that one was "
                f"given up, delete s3://{self.claimed} and run again"
            )

    def unclaim(self) -> None:
        """Delete the claim if it is ours."""
        if self._get(self.claimed) == self.mark:
            with self._translated_errors():
                self.fs.rm_file(self.claimed)

    def release(self) -> None:
        """Put the manifest: from here on the version can be fetched."""
        if self._get(self.claimed) != self.mark and not self.is_released():
            raise UserError(f"{self.address}: our claim was deleted while we published; run again")
        if not self._create(self.visible, self.manifest):
            self.is_released()

    def holds(self, file: File) -> bool:
        """Return whether the object of a file is there with its size and hash."""
        bucket, key, _ = self.fs.split_path(f"{self.base}/{file.path}")
        try:
            with self._translated_errors():
                head = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        except Absent:
            return False
        return (head["ContentLength"], head["Metadata"].get("sha256")) == (file.bytes, file.sha256)

    def put(self, file: File, path: Path) -> None:
        """Send one file, if it still is what the manifest says."""
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise UserError(f"{path}: changed while it was published; run again")
        with self._translated_errors():
            self.fs.pipe_file(f"{self.base}/{file.path}", data, Metadata={"sha256": file.sha256})

    def _get(self, path: str) -> bytes | None:
        try:
            with self._translated_errors():
                return bytes(self.fs.cat_file(path))
        except Absent:
            return None

    def _create(self, path: str, data: bytes) -> bool:
        """Put an object where there is none; return False where there is one."""
        try:
            with self._translated_errors():
                self.fs.pipe_file(path, data, mode="create")
        except TransientError as e:
            if str(e) not in TAKEN:
                raise
            return False
        return True

    def _translated_errors(self) -> AbstractContextManager[None]:
        return stores.translated_errors(self.address, stores.S3_HINT)
