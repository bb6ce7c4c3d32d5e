"""Download a release to a folder: parallel, resumable, and visible only once it is verified."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock

from filelock import FileLock, Timeout

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import Absent, UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.read import join_faults, verify
from alignrec.pipeline.release.stores import (
    MAX_ATTEMPTS,
    Progress,
    Store,
    local_path,
    open_store,
    read_small,
)
from alignrec.pipeline.web.download import is_web_page
from alignrec.pipeline.web.retries import MIN_PROGRESS_BYTES, TransientError, append_blocks

PARALLEL_FILES = 8
WORK = "fetch"  # ending of the folder for unfinished downloads


def fetch(
    address: str,
    to: Path,
    encoder: str | None = None,
    progress: Progress = lambda done, total: None,
    key: Path | None = None,
) -> Path:
    """Download a release, or one feature set of it, to a folder.

    The folder is absent, empty or already this release. The signature by `key` is checked before
    the manifest is parsed. UserError if a file is missing, truncated or altered; `to` is then left
    untouched.
    """
    to = Path(os.path.abspath(to))
    with _claim_target(to) as work:
        _fill_folder(open_store(address), to, work, encoder, progress, key)
    return to


@contextmanager
def _claim_target(to: Path) -> Iterator[Path]:
    """Yield the locked folder for unfinished downloads of a target; UserError if it is in use."""
    # files go to a hidden folder next to the target, which is renamed once all of them are verified
    work = io.next_to(to, WORK)
    _claim_folder(work)
    try:
        with FileLock(work / "lock", timeout=0):
            try:
                yield work
            finally:
                # keep unfinished downloads only; the next fetch recreates the folder and its lock
                if not any(path.is_dir() for path in work.iterdir()):
                    shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise UserError(
            f"{to}: another fetch is filling it; wait for that one, or name another folder"
        ) from None


def _claim_folder(work: Path) -> None:
    with suppress(FileExistsError):
        work.mkdir(parents=True)
    # in a shared folder such as /tmp, another user may have taken its name
    status = work.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_own(status):
        raise UserError(f"{work}: not a folder of yours; delete it, or name another target")


def _is_own(status: os.stat_result) -> bool:
    # Windows has no user ids, and its folder of temporary files is not shared
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def read_remote_manifest(address: str) -> tuple[Manifest, str]:
    with tempfile.TemporaryDirectory() as folder:
        manifest = _read_manifest(open_store(address), Path(folder))
        return manifest, io.sha256(Path(folder) / manifests.MANIFEST_FILE)


def _fill_folder(
    store: Store,
    to: Path,
    work: Path,
    encoder: str | None,
    progress: Progress,
    key: Path | None,
) -> None:
    manifest = _read_manifest(store, work, key)
    if encoder is not None:
        manifest = _select_part(manifest, work, encoder)

    if _is_filled(to, (work / manifests.MANIFEST_FILE).read_bytes()):
        verify(to)
    else:
        # named by the manifest's hash, so that a resumed download never mixes two versions
        release = work / io.sha256(work / manifests.MANIFEST_FILE)
        _download_files(store, manifest.files, release, progress)
        for path in work.glob(f"{manifests.MANIFEST_FILE}*"):  # the manifest and its signature
            shutil.copyfile(path, release / path.name)
        verify(release)
        io.rename_folder(release, to)
    for folder in [path for path in work.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)


def _is_filled(to: Path, manifest: bytes) -> bool:
    """Return whether a target has this manifest; UserError if it is neither that nor empty."""
    if io.is_free(to):
        return False
    present = to / manifests.MANIFEST_FILE
    if not present.is_file() or present.read_bytes() != manifest:
        raise UserError(f"{to}: holds something else; name another folder, or delete this one")
    return True


def _select_part(manifest: Manifest, work: Path, features: str) -> Manifest:
    """Restrict the manifest to one feature set, and write it to `work`."""
    available = manifest.sets_with("features")
    if features not in available:
        listed = ", ".join(available)
        raise UserError(f"no feature set '{features}' in this release; it has {listed}")

    files = [
        file
        for file in manifest.files
        if file.feature_set in (None, features) and features in (file.used_by or [features])
    ]
    path = work / manifests.MANIFEST_FILE
    whole = manifest.part_of or io.sha256(path)
    manifests.write(path, manifest.model_copy(update={"files": files, "part_of": whole}))
    (work / signature.SIGNATURE_FILE).unlink(missing_ok=True)  # it signs the complete manifest
    return manifests.load(work)


def _read_manifest(store: Store, work: Path, key: Path | None = None) -> Manifest:
    """Copy the manifest and its signature, if any, to `work`; return the validated manifest."""
    path = work / manifests.MANIFEST_FILE
    try:
        data = read_small(store, manifests.MANIFEST_FILE, manifests.MAX_MANIFEST_BYTES)
        if is_web_page(data):
            raise UserError(
                f"{path}: a web page, and no manifest; is that the address of a release?"
            )
        io.write_bytes(path, data)
        _copy_signature(store, work / signature.SIGNATURE_FILE)
        signature.check(work, data, key)
        return manifests.parse(work, manifests.read(work))
    except Absent:
        folder = local_path(store.address)
        advice = "is this the address of a release?"
        if folder is not None:
            advice = manifests.suggest_release(folder)
        raise UserError(f"{store.address}: no {manifests.MANIFEST_FILE} there; {advice}") from None
    except UserError as e:
        raise UserError(str(e).replace(str(work), store.address)) from None


def _copy_signature(store: Store, path: Path) -> None:
    path.unlink(missing_ok=True)
    # for missing files, some servers deny access and others return a web page
    with suppress(UserError):
        signed = read_small(store, signature.SIGNATURE_FILE, signature.MAX_SIGNATURE_BYTES)
        if len(signed) <= signature.MAX_SIGNATURE_BYTES and not is_web_page(signed):
            io.write_bytes(path, signed)


def _download_files(store: Store, files: list[File], release: Path, progress: Progress) -> None:
    total = sum(file.bytes for file in files)
    n_bytes = 0
    lock = Lock()
    stopped = Event()

    def count(n: int) -> None:
        nonlocal n_bytes
        with lock:
            n_bytes += n
            progress(n_bytes, total)

    def download(file: File) -> str | None:
        return _download_file(store, file, release / file.path, count, stopped)

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        try:
            faults = sorted(filter(None, pool.map(download, files)))
        except BaseException:
            stopped.set()
            raise
    if faults:
        raise UserError(
            f"{store.address}: {join_faults(faults)}. What is whole is kept; "
            "run again to fetch the rest"
        )


def _download_file(
    store: Store, file: File, path: Path, count: Callable[[int], None], stopped: Event
) -> str | None:
    """Download a file, resuming a partial download; return a fault, or None on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    resumed = path.stat().st_size
    count(resumed)

    def read(size: int) -> Iterator[bytes]:
        if size >= file.bytes:
            return
        for block in store.read(file.path, size):
            yield block
            count(len(block))
            size += len(block)
            if size > file.bytes or stopped.is_set():
                return

    min_progress = min(MIN_PROGRESS_BYTES, file.bytes >> 6)
    try:
        append_blocks(read, path, MAX_ATTEMPTS, min_progress, stopped.wait)
    except Absent:
        return f"{file.path}: missing"
    except TransientError as e:
        size = path.stat().st_size
        return f"{file.path}: cut off at {size:,} of {file.bytes:,} bytes ({e})"

    size = path.stat().st_size
    if size < file.bytes:
        return f"{file.path}: truncated, {size:,} of {file.bytes:,} bytes"
    if size == file.bytes and io.sha256(path) == file.sha256:
        return None
    path.unlink()
    count(-size)
    if resumed:  # the partial download may belong to another file
        return _download_file(store, file, path, count, stopped)
    return f"{file.path}: tampered with, its size or sha256 is not the manifest's"
