"""Download a release to a folder: parallel, resumable, and visible only once it is verified."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock

from filelock import FileLock, Timeout

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.read import join_faults, verify
from alignrec.pipeline.release.stores import MAX_ATTEMPTS, Progress, Store, open_store, read_small
from alignrec.pipeline.web.download import is_web_page
from alignrec.pipeline.web.retries import MIN_PROGRESS_BYTES, Absent, TransientError, append_blocks

WORKERS = 8
WORK = "fetch"  # ending of the folder for unfinished downloads


def fetch(
    address: str, to: Path, encoder: str | None = None, progress: Progress = lambda done, total: None,
    key: Path | None = None,
) -> Path:  # fmt: skip
    """Download a release, or one feature set of it, to a folder that is absent, empty or already this release.

    The signature by `key` is checked before the manifest is parsed. UserError if a file is missing, truncated or
    altered; `to` is then left untouched.
    """
    to = Path(os.path.abspath(to))
    # files go to a hidden folder next to the target, which is renamed once all of them are verified
    work = io.next_to(to, WORK)
    with suppress(FileExistsError):
        work.mkdir(parents=True)
    # in a shared folder such as /tmp, another user may have taken its name
    status = work.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_own(status):
        raise UserError(f"{work}: not a folder of yours; delete it, or name another target")
    try:
        with FileLock(work / "lock", timeout=0):
            try:
                _fill_folder(open_store(address), to, work, encoder, progress, key)
            finally:
                # keep unfinished downloads only; the next fetch recreates the folder and its lock
                if not any(path.is_dir() for path in work.iterdir()):
                    shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise UserError(
            f"{to}: another fetch is filling it; wait for that one, or name another folder"
        ) from None
    return to


def _is_own(status: os.stat_result) -> bool:
    # Windows has no user ids, and its folder of temporary files is not shared
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def read_remote_manifest(address: str) -> tuple[Manifest, str]:
    with tempfile.TemporaryDirectory() as folder:
        manifest = _read_manifest(open_store(address), Path(folder))
        return manifest, io.sha256(Path(folder) / manifests.NAME)


def _fill_folder(
    store: Store, to: Path, work: Path, encoder: str | None, progress: Progress, key: Path | None
) -> None:
    manifest = _read_manifest(store, work, key)
    if encoder is not None:
        if encoder not in (sets := manifest.sets_with("features")):
            raise UserError(f"no feature set '{encoder}' in this release; it has {', '.join(sets)}")
        files = [
            f
            for f in manifest.files
            if f.feature_set in (None, encoder) and encoder in (f.used_by or [encoder])
        ]
        whole = manifest.part_of or io.sha256(work / manifests.NAME)
        manifests.write(
            work / manifests.NAME, manifest.model_copy(update={"files": files, "part_of": whole})
        )
        (work / signature.NAME).unlink(missing_ok=True)  # it signs the complete manifest
        manifest = manifests.load(work)
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        present = to / manifests.NAME
        if not present.is_file() or present.read_bytes() != (work / manifests.NAME).read_bytes():
            raise UserError(f"{to}: holds something else; name another folder, or delete this one")
        verify(to)
    else:
        # named by the manifest's hash, so that a resumed download never mixes two versions
        release = work / io.sha256(work / manifests.NAME)
        _download_files(store, manifest.files, release, progress)
        for path in work.glob(f"{manifests.NAME}*"):  # the manifest and its signature
            shutil.copyfile(path, release / path.name)
        verify(release)
        io.rename_folder(release, to)
    for unfinished in [path for path in work.iterdir() if path.is_dir()]:
        shutil.rmtree(unfinished)


def _read_manifest(source: Store, work: Path, key: Path | None = None) -> Manifest:
    """Copy the manifest and its signature, if any, to `work`; return the validated manifest."""
    try:
        data = read_small(source, manifests.NAME, manifests.MAX_BYTES)
        if is_web_page(data):
            raise UserError(
                f"{work / manifests.NAME}: a web page, and no manifest; is that the address of a release?"
            )
        io.write_bytes(work / manifests.NAME, data)
        (work / signature.NAME).unlink(missing_ok=True)
        # for missing files, some servers deny access and others return a web page
        with suppress(UserError):
            signed = read_small(source, signature.NAME, signature.MAX_BYTES)
            if len(signed) <= signature.MAX_BYTES and not is_web_page(signed):
                io.write_bytes(work / signature.NAME, signed)
        signature.check(work, data, key)
        return manifests.parse(work, manifests.read(work))
    except Absent:
        raise UserError(
            f"{source.address}: no {manifests.NAME} there; is this the address of a release?"
        ) from None
    except UserError as e:
        raise UserError(str(e).replace(str(work), source.address)) from None


def _download_files(source: Store, files: list[File], release: Path, progress: Progress) -> None:
    done, total, lock, stopped = 0, sum(f.bytes for f in files), Lock(), Event()

    def count(n: int) -> None:
        nonlocal done
        with lock:
            done += n
            progress(done, total)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            found = pool.map(
                lambda file: _download_file(source, file, release / file.path, count, stopped),
                files,
            )
            faults = sorted(filter(None, found))
        except BaseException:
            stopped.set()
            raise
    if faults:
        raise UserError(
            f"{source.address}: {join_faults(faults)}. What is whole is kept; run again to fetch the rest"
        )


def _download_file(
    source: Store, file: File, path: Path, count: Callable[[int], None], stopped: Event
) -> str | None:
    """Download `file` to `path`, resuming a partial download; return a fault, or None on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    resumed = path.stat().st_size
    count(resumed)

    def read(have: int) -> Iterator[bytes]:
        for block in source.read(file.path, have) if have < file.bytes else ():
            yield block
            count(len(block))
            have += len(block)
            if have > file.bytes or stopped.is_set():
                return

    try:
        append_blocks(
            read, path, MAX_ATTEMPTS, min(MIN_PROGRESS_BYTES, file.bytes >> 6), stopped.wait
        )
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
    count(-have)
    if resumed:  # the partial download may belong to another file
        return _download_file(source, file, path, count, stopped)
    return f"{file.path}: tampered with, its size or sha256 is not the manifest's"
