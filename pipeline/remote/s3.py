"""Uploads a release to an S3 bucket, whose objects cannot be renamed.

The manifest, put last, makes a version visible. Before any data, a publisher claims the version for its content: by an
object next to it, `<version>.sha256`, with the hash of the manifest, which stays. A second publisher of the same
content joins, one of other content is refused. The next call resumes an interrupted one: an object whose size and
sha256 (in its metadata) are right is not sent again.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.http.retries import Absent
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import File, Manifest
from pipeline.remote.stores import Bucket, Meter, Progress

WORKERS = 4  # files sent at a time; each is in memory
SILENCE = 600.0  # seconds for sending a part of 5 MB, of at most eight at a time


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
