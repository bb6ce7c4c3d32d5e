"""Publishes a release to an S3 bucket.

Objects cannot be renamed, so the manifest, put last and only if there is none, makes a version visible. Before any
data, the publisher claims the version by an object next to it, `<version>.publishing`, with the hash of its manifest:
a second publisher of the same content joins, one of other content is refused. The next call resumes an interrupted
one: an object whose size and sha256 (in its metadata) are right is not sent again.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import UserError
from pipeline.http.hub import Absent
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote.addresses import s3_path
from pipeline.remote.bucket import Bucket
from pipeline.remote.fetch import Meter, Progress
from pipeline.remote.stores import AlreadyReleased

WORKERS = 4  # files sent at a time; each is in memory
SILENCE = 600.0  # seconds for sending a part of 5 MB, of at most eight at a time


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
                self.claims.delete(self.claimed)
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
            self.claims.delete(self.claimed)

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
    """Publish a verified release to s3://bucket[/prefix], at `place`; see push.push."""
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
