"""Uploads a release to an S3 bucket: data first, then the manifest, only if there is none, which makes it visible.

An object whose size and sha256 (in its metadata) are right is not sent again, so that the next call continues an
interrupted one, or repairs a version that another publisher wrote to at the same moment.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import UserError
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote.base import s3_path
from pipeline.remote.bucket import Bucket
from pipeline.remote.fetch import Meter, Progress
from pipeline.remote.stores import Absent, AlreadyReleased

WORKERS = 4  # files at a time; each is in memory
SILENCE = 600.0  # seconds for sending a part of 5 MB, of at most eight at a time


def push(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    """Publish a verified release to s3://bucket[/prefix], at `place`; see push.push."""
    bucket = Bucket(f"s3://{s3_path(target)}/{place}", SILENCE)
    whole = (release / manifests.NAME).read_bytes()
    files = [*manifest.files, *signature.files(release)]
    try:
        _refuse_other(bucket, whole)
        _send(release, files, bucket, whole, progress)
        if lacking := [f.path for f in files if not _holds(bucket, f)]:
            raise UserError(f"{bucket.address}: {lacking[0]} changed while it was published; run again")
        if not bucket.create(manifests.NAME, whole):
            _refuse_other(bucket, whole)
    except Absent:
        raise UserError(f"{bucket.address}: no such bucket") from None
    except TransientError as e:
        raise UserError(f"{bucket.address}: {e}; run again to continue") from None
    return bucket.address


def _send(release: Path, files: list[File], bucket: Bucket, whole: bytes, progress: Progress) -> None:
    meter = Meter(sum(f.bytes for f in files), progress)

    def one(file: File) -> None:
        if not meter.stopped.is_set() and not _holds(bucket, file):
            data = (release / file.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError(f"{release / file.path}: changed while it was published; run again")
            _refuse_other(bucket, whole)  # released by another publisher, meanwhile
            bucket.put(file.path, data, file.sha256)
        meter.add(file.bytes)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            list(pool.map(one, files))
        except BaseException:
            meter.stopped.set()
            raise


def _refuse_other(bucket: Bucket, whole: bytes) -> None:
    if bucket.get(manifests.NAME) not in (None, whole):
        raise AlreadyReleased


def _holds(bucket: Bucket, file: File) -> bool:
    return bucket.head(file.path) == (file.bytes, file.sha256)
