"""Write files atomically, and keep journals of resumable folders."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.pipeline.io.errors import UserError

# files of a resumable folder: the key of its inputs, and the sha256 of each file written to it
KEY, JOURNAL = ".key", ".sha256"
RECORD, COST = "run.json", "cost.json"  # record of a stage, and the resources it used
UNLISTED = {KEY, JOURNAL, RECORD, COST}  # files that journals skip
HELD_OTHERWISE = {".part", ".etag"}  # partial downloads grow in place, so journals skip them


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success, flushed to disk and added to the folder's journal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # an unpredictable name, created exclusively, so that no planted link is followed
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        if path.name not in UNLISTED and (folder := _begun_above(path)) is not None:
            digest = sha256(temporary)
            with (folder / JOURNAL).open("a", encoding="utf-8") as f:
                f.write(
                    f"\n{digest}  {path.relative_to(folder)}"
                )  # a kill may have cut off the line before
                f.flush()
                os.fsync(f.fileno())
        temporary.replace(path)
    except BaseException as e:
        temporary.unlink(missing_ok=True)
        if (full := os.strerror(errno.ENOSPC)) in str(
            e
        ):  # Arrow omits the path, and safetensors raises no OSError
            raise OSError(errno.ENOSPC, full, str(path)) from e
        raise


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_space(folder: Path, size: int) -> None:
    """Raise OSError if the disk is full, before a file is mapped: writing to it would end the process by SIGBUS."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def begin(folder: Path, key: str) -> None:
    """Empty a resumable folder and start its journal, unless its `key`, a hash of all inputs, is unchanged."""
    mark = folder / KEY
    if (folder / JOURNAL).is_file() and mark.is_file() and mark.read_bytes() == key.encode():
        return
    shutil.rmtree(folder, ignore_errors=True)
    write_bytes(folder / JOURNAL, b"")
    write_bytes(mark, key.encode())  # written last, as a folder without a key is emptied


def delete_unvouched(folder: Path) -> list[Path]:
    """Delete files that the journal lacks or whose hash differs, except in nested journals; return the altered ones."""
    listed: dict[Path, set[str]] = {}  # path -> sha256 of each version written
    journal = (
        (folder / JOURNAL).read_text("utf-8", "replace") if (folder / JOURNAL).is_file() else ""
    )
    for digest, _, name in (
        line.partition("  ") for line in journal.split("\n")
    ):  # a kill may cut off the last line
        listed.setdefault(folder / name, set()).add(digest)
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and p.name not in UNLISTED and _begun_above(p) == folder
    )
    known = [path for path in files if path in listed]
    altered = [
        path
        for path, digest in zip(known, sha256s(known), strict=True)
        if digest not in listed[path]
    ]
    for path in [
        *altered,
        *(p for p in files if p not in listed and p.suffix not in HELD_OTHERWISE),
    ]:
        path.unlink(missing_ok=True)  # ranks of distributed training run this concurrently
    return altered


def _begun_above(path: Path) -> Path | None:
    return next((f for f in path.parents if (f / JOURNAL).is_file() and (f / KEY).is_file()), None)


def link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def rename_folder(folder: Path, to: Path) -> None:
    """Rename a folder to a path that is absent or an empty folder."""
    if to.exists():
        to.rmdir()  # Windows renames to absent paths only
    folder.rename(to)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def mapped(parts: Iterable[np.ndarray], folder: Path | None = None) -> np.ndarray:
    """Concatenate arrays into a copy-on-write memory map of an unlinked file, in the system's folder by default."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    rows, last = 0, None
    with tempfile.TemporaryFile(dir=folder) as file:
        for last in parts:
            file.write(np.ascontiguousarray(last).data)
            rows += len(last)
        file.flush()
        if last is None or not rows * last[:1].size:
            raise ValueError("an empty file cannot be mapped")
        return np.memmap(file, last.dtype, "c", shape=(rows, *last.shape[1:]))


def write_npy(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    write_bytes(
        path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    )


def read_json(path: Path, most: int | None = None) -> Any:
    """Read a JSON file; raise UserError, with the command to run, if it is missing, invalid or above `most` bytes."""
    try:
        if most is not None and path.exists():
            require_plain(path, most)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {made_by(path)}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON ({e}); {made_by(path)}") from None


def require_plain(path: Path, most: int | None = None) -> Path:
    """Return `path`; raise UserError unless it is a regular file of at most `most` bytes."""
    # external files are checked here before they are opened: pipes and devices may block forever
    if not path.is_file():
        fault = "not a plain file but a folder, pipe or device" if path.exists() else "no such file"
        raise UserError(f"{path}: {fault}; correct the path")
    if most is not None and (size := path.stat().st_size) > most:
        raise UserError(
            f"{path}: {size:,} bytes, and files of this kind have at most {most:,}; is it the right one?"
        )
    return path


def next_to(path: Path, ending: str) -> Path:
    """Return a hidden name next to a path, for unfinished work; UserError for the root of the file system."""
    if not (path := path.absolute()).name:
        raise UserError(f"{path}: cannot create a folder there; name one inside it")
    return path.with_name(f".{path.name}.{ending}")


def list_plain(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder that match, without hidden ones, whose names begin with _ or a dot."""
    return [
        require_plain(path) for path in sorted(folder.glob(pattern)) if path.name[0] not in "._"
    ]


def sha256(path: Path) -> str:
    status = path.stat()  # hashes are cached until the file changes
    if not stat.S_ISREG(status.st_mode):
        require_plain(path)
    return _hash_cached(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _hash_cached(path: Path, *state: int) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sig")
    return sorted(
        p
        for p in found
        if not any(n[0] == "." or n in UNLISTED for n in p.relative_to(folder).parts)
    )


def sha256s(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(sha256, paths))


def digest(paths: Iterable[Path]) -> str:
    files = list(paths)
    lines = (f"{path.name} {digest}\n" for path, digest in zip(files, sha256s(files), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def present(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: not there; {made_by(path)}")
    return list(paths)


def keep_only(folder: Path, wanted: Iterable[Path]) -> None:
    kept = set(wanted)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept and not path.name.startswith("."):
            path.unlink()


def made_by(path: Path) -> str:
    parts, stages = path.parts, Path(__file__).parents[2] / "stages"
    for i in [*range(len(parts) - 2, 0, -1), len(parts) - 1]:
        if i > 0 and (stages / f"{parts[i - 1]}.py").is_file():
            return f"run `alignrec {parts[i - 1]} {parts[i]}` first"
    return "make or fetch it again"
