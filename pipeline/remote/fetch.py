"""Download a release to a folder: parallel, resumable, and visible only once it is verified."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.http.fetch import is_web_page
from alignrec.pipeline.http.retries import ENOUGH, Absent, TransientError, append_blocks
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature, verify
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.verify import join_faults
from alignrec.pipeline.remote.stores import TRIES, Progress, Store, open_store, read_small, resolve_sample

WORKERS = 8


def fetch(
    address: str,
    to: Path,
    encoder: str | None = None,
    progress: Progress = lambda done, total: None,
    key: Path | None = None,
) -> Path:
    """Download a release, or one feature set of it, to a folder that is absent, empty or already this release.

    The signature by `key` is checked before the manifest is parsed. UserError if a file is missing, truncated or
    altered; `to` is then left untouched.
    """
    to = Path(os.path.abspath(to))
    # files go to a hidden folder next to the target, which is renamed once all of them are verified
    work = work_folder(to)
    with _lock_folder(work, to):
        source = open_store(resolve_sample(address))
        manifest = _read_manifest(source, work, key, signed=True)
        if encoder is not None:
            manifest = _select_encoder(manifest, encoder, work)
        if not _is_complete(to, work / manifests.NAME):
            # named by the manifest's hash, so that a resumed download never mixes two versions
            release = work / io.sha256(work / manifests.NAME)
            _download_files(source, manifest.files, release, progress)
            for path in work.glob(f"{manifests.NAME}*"):  # the manifest and its signature
                shutil.copyfile(path, release / path.name)
            verify(release)
            release.rename(to)
        for unfinished in _folders_in(work):
            shutil.rmtree(unfinished)
    return to


def read_remote_manifest(address: str) -> tuple[Manifest, str]:
    with tempfile.TemporaryDirectory() as folder:
        manifest = _read_manifest(open_store(resolve_sample(address)), Path(folder))
        return manifest, io.sha256(Path(folder) / manifests.NAME)


def work_folder(to: Path) -> Path:
    """Return the folder for unfinished downloads of `to`; UserError if `to` is the root."""
    if not to.name:
        raise UserError(f"{to}: cannot create a folder there; name one inside it")
    return to.with_name(f".{to.name}.fetch")


def _folders_in(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.is_dir()]


@contextmanager
def _lock_folder(work: Path, to: Path) -> Iterator[None]:
    # the lock is in the work folder, which is deleted at the end and recreated by the next fetch
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{to}: another fetch is filling it; wait for that one, or name another folder") from None
    try:
        yield
    finally:
        lock.release()
        if not _folders_in(work):
            shutil.rmtree(work, ignore_errors=True)


def _read_manifest(source: Store, work: Path, key: Path | None = None, signed: bool = False) -> Manifest:
    try:
        data = read_small(source, manifests.NAME, manifests.MAX_BYTES)
        io.write_bytes(work / manifests.NAME, data)
        if signed:
            _keep_signature(source, work)
            signature.check(work, data, key)
        return manifests.parse(work, manifests.read(work))
    except Absent:
        raise UserError(f"{source.address}: no {manifests.NAME} there; is this the address of a release?") from None
    except UserError as e:
        raise UserError(str(e).replace(str(work), source.address)) from None


def _keep_signature(source: Store, work: Path) -> None:
    (work / signature.NAME).unlink(missing_ok=True)
    # for a missing file some servers deny access, others answer with a web page
    with suppress(UserError):
        data = read_small(source, signature.NAME, signature.MAX_BYTES)
        if len(data) <= signature.MAX_BYTES and not is_web_page(data):
            io.write_bytes(work / signature.NAME, data)


def _select_encoder(manifest: Manifest, encoder: str, work: Path) -> Manifest:
    """Reduce the manifest in `work` to one feature set, and drop the signature, which covers the whole."""
    if encoder not in (sets := manifest.sets_with("features")):
        raise UserError(f"no feature set '{encoder}' in this release; it has {', '.join(sets)}")
    files = [f for f in manifest.files if f.feature_set in (None, encoder) and encoder in (f.used_by or [encoder])]
    whole = manifest.part_of or io.sha256(work / manifests.NAME)
    manifests.write(work / manifests.NAME, manifest.model_copy(update={"files": files, "part_of": whole}))
    (work / signature.NAME).unlink(missing_ok=True)
    return manifests.load(work)


def _is_complete(to: Path, manifest: Path) -> bool:
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return False
    if not (to / manifests.NAME).is_file() or (to / manifests.NAME).read_bytes() != manifest.read_bytes():
        raise UserError(f"{to}: holds something else; name another folder, or delete this one")
    verify(to)
    return True


class Meter:
    """Thread-safe byte counter, with a flag that stops all downloads."""

    def __init__(self, files: Sequence[File], progress: Progress) -> None:
        self.total, self.progress, self.done = sum(f.bytes for f in files), progress, 0
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def add(self, n: int) -> None:
        with self.lock:
            self.done += n
            self.progress(self.done, self.total)


def _download_files(source: Store, files: list[File], release: Path, progress: Progress) -> None:
    release.mkdir(exist_ok=True)
    meter = Meter(files, progress)
    lacking = meter.total - sum(path.stat().st_size for path in release.rglob("*") if path.is_file())
    free = shutil.disk_usage(release).free
    if lacking > free:
        raise UserError(f"{release.parent}: {lacking:,} bytes to download, but that disk has {free:,} free; make space")

    def download_file(file: File) -> str | None:
        return fetch_file(source, file, release / file.path, meter)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            faults = sorted(filter(None, pool.map(download_file, files)))
        except BaseException:
            meter.stopped.set()
            raise
    if faults:
        raise UserError(f"{source.address}: {join_faults(faults)}. What is whole is kept; run again to fetch the rest")


def fetch_file(source: Store, file: File, path: Path, meter: Meter) -> str | None:
    """Download `file` to `path`, resuming a partial one; return a fault, None on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    resumed = path.stat().st_size
    meter.add(resumed)

    def read(have: int) -> Iterator[bytes]:
        for block in source.read(file.path, have) if have < file.bytes else ():
            yield block
            meter.add(len(block))
            have += len(block)
            if have > file.bytes or meter.stopped.is_set():
                return

    try:
        append_blocks(read, path, TRIES, min(ENOUGH, file.bytes >> 6), meter.stopped.wait)
    except Absent:
        return f"{file.path}: missing"
    except TransientError as e:
        return f"{file.path}: cut off at {path.stat().st_size:,} of {file.bytes:,} bytes ({e})"
    have = path.stat().st_size
    if have < file.bytes:
        return f"{file.path}: truncated, {have:,} of {file.bytes:,} bytes"
    if have == file.bytes and io.sha256(path) == file.sha256:
        return None
    path.unlink()
    meter.add(-have)
    if resumed:  # the partial file may have been of other content: retry once from scratch
        return fetch_file(source, file, path, meter)
    if have > file.bytes:
        return f"{file.path}: longer than the manifest's {file.bytes:,} bytes"
    return f"{file.path}: tampered with, its sha256 is not the manifest's"
