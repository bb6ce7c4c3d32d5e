"""Whether anything was touched since a stage last had nothing to do, asked of the file system alone.

DVC asks each stage, and loading what parameters need takes half a second: here is the standard library, and no more.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "stages", "schemas")
NOTHING = "nothing to do; its inputs, parameters and code are those of the last run"
PARAMS, ROOT, STAMP = "params.yaml", "outputs", ".stamp"
IMPORTED_FROM = [entry for entry in sys.path if os.path.isdir(entry)]
"""folders whose time of change says that a package was installed or removed; before a library adds one"""


def since_last(stage: str, dataset: str) -> bool:
    """Return whether a stage would have nothing to do, with the default files: all is as when it last said so."""
    try:
        stamp = json.loads(Path(ROOT, stage, dataset, STAMP).read_bytes())
        return PARAMS in stamp["watched"] and stamp["state"] == state(stamp["watched"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def state(paths: Iterable[str]) -> str:
    """Return the sha256 of what changes when a file at or below `paths`, of the code or of a package is written.

    Files whose names begin with a dot do not count, nor what Python compiles; of a path that is gone, that it is.
    """
    installed = [(entry, os.stat(entry).st_mtime_ns) for entry in IMPORTED_FROM]
    total = hashlib.sha256(repr([sys.version, installed]).encode())
    for path in (*(str(CODE / package) for package in PACKAGES), *paths):
        for name, status in sorted(_files(path)):
            total.update(f"{name} {status}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _files(path: str) -> Iterator[tuple[str, list[int]]]:
    """Yield each file at or below a path, and its number, size, and times of change."""
    if not os.path.isdir(path):
        yield path, _touched(os.stat(path)) if os.path.exists(path) else []
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry.path, _touched(entry.stat())


def _touched(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
