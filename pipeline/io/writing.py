"""Write files atomically and arrays to memory-mapped files; link, move and delete files."""

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.pipeline.io.folders import remove, rename_file
from alignrec.pipeline.io.journal import list_file


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success.

    It is flushed to disk and listed in the folder's journal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # an unpredictable name, created exclusively, so that no planted link is followed
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        list_file(path, temporary)
        rename_file(temporary, path)
    except BaseException as e:
        temporary.unlink(missing_ok=True)
        # Arrow omits the path, and safetensors raises no OSError
        disk_full = os.strerror(errno.ENOSPC)
        if disk_full in str(e):
            raise OSError(errno.ENOSPC, disk_full, str(path)) from e
        raise


def write_bytes(path: Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def copy_file(path: Path, to: Path) -> None:
    with atomic(to) as temporary:
        shutil.copyfile(path, temporary)


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def write_npy(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def require_space(folder: Path, size: int) -> None:
    """Raise OSError if the disk is full, before a file is mapped.

    Writing to it would end the process by SIGBUS.
    """
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def memory_map(parts: Iterable[np.ndarray], folder: Path | None = None) -> np.ndarray:
    """Concatenate arrays into a copy-on-write memory map of an unlinked file.

    The file is in the system's temporary folder by default.
    """
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    rows = 0
    last = None
    with tempfile.TemporaryFile(dir=folder) as file:
        for last in parts:
            file.write(np.ascontiguousarray(last).data)
            rows += len(last)
        file.flush()

        if last is None or not rows * last[:1].size:
            raise ValueError("an empty file cannot be mapped")
        return np.memmap(file, last.dtype, "c", shape=(rows, *last.shape[1:]))


def link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def keep_only(folder: Path, files: Iterable[Path]) -> None:
    """Delete all other files that are not hidden, and empty folders."""
    expected = set(files)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in expected and not path.name.startswith("."):
            path.unlink()
