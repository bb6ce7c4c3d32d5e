"""Whether all is as when a stage last ended, asked of the file system alone: it has nothing to do then.

DVC asks each stage, and loading what parameters need takes half a second: here is the standard library, and no more.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NOTHING = "nothing to do; its inputs, parameters and code are those of the last run"
PARAMS, VARIABLE = "params.yaml", "ALIGNREC_PARAMS"
"""the parameter file, unless a variable of the environment names another"""
ROOT, STAMP, RECORD = "outputs", ".stamp", "run.json"
CODE = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "stages", "schemas")
IMPORTED_FROM = [entry for entry in sys.path if os.path.isdir(entry)]
"""folders whose time of change says that a package was installed or removed; before a library adds one"""


def since_last(stage: str, dataset: str) -> bool:
    """Return whether a stage, asked without options, has nothing to do: all is as when it last ended."""
    folder = Path(ROOT, stage, dataset)
    try:
        stamp = _read(folder)
        return (
            stamp["params"] == str(Path(os.environ.get(VARIABLE, PARAMS)))
            and (folder / RECORD).exists()
            and stamp["state"] == state(stamp["watched"])
            and all(_is_as_left(Path(path), digest) for path, digest in stamp["read"].items())
            and _is_as_left(folder, digest_of(stamp["files"]))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def state(paths: Iterable[str]) -> str:
    """Return the sha256 of what changes when a file of `paths`, of the code or of a package is written or replaced."""
    installed = [(entry, os.stat(entry).st_mtime_ns) for entry in IMPORTED_FROM]
    total = hashlib.sha256(repr([sys.version, installed]).encode())
    code = ((str(CODE / top / name), status) for top in PACKAGES for name, status in files(str(CODE / top)))
    given = ((path, os.stat(path)) for path in paths if os.path.exists(path))
    for path, status in (*sorted(code, key=lambda file: file[0]), *given):
        total.update(f"{path} {touched(status)}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def files(folder: str, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path from `folder` of each file in it, and its status; of no name that begins with a dot.

    What Python compiles, run records and signatures are left out too.
    """
    with os.scandir(os.path.join(folder, below)) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            name = os.path.join(below, entry.name)
            if entry.is_dir():
                yield from files(folder, name)
            elif entry.is_file() and name != RECORD and not name.endswith(".sig"):
                yield name, entry.stat()


def touched(status: os.stat_result) -> list[int]:
    """Return what changes when a file is written or replaced: its number, size, and times of change."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest_of(hashes: dict[str, str]) -> str:
    """Return one sha256 over name -> sha256 of files."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _is_as_left(folder: Path, digest: str) -> bool:
    """Return whether a stage's files are those of `digest`, and are as its stamp has them."""
    stamp = _read(folder)
    there = dict(files(str(folder)))
    return (
        digest_of(stamp["files"]) == digest
        and there.keys() == stamp["files"].keys()
        and all(_is_same(folder / name, there[name], stamp["touched"][name], stamp["files"][name]) for name in there)
    )


def _is_same(path: Path, status: os.stat_result, left: list[int], digest: str) -> bool:
    """Return whether a file is as it was left; DVC sets its mode, which changes its last time, and it is hashed."""
    now = touched(status)
    if now[:-1] != left[:-1]:
        return False
    if now == left:
        return True
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() == digest


def _read(folder: Path) -> dict[str, Any]:
    stamp: dict[str, Any] = json.loads((folder / STAMP).read_bytes())
    return stamp
