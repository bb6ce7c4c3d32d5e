"""Find, check and hash files."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

from alignrec.pipeline.io.errors import UserError, most_similar

# files of a resumable folder, see journal.py: the key of its inputs, and the sha256 of each file
# written to it
KEY = ".key"
JOURNAL = ".sha256"
# record of a stage, and the resources it used
RECORD = "run.json"
COST = "cost.json"

# flags that Windows or other systems lack
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)

MAX_COMPARED_FILES = 10_000  # of a folder, with the name of one that is missing

STAGES_FOLDER = Path(__file__).parents[2] / "stages"
NO_STAGES = {"__init__", "checks", "order"}  # other files there


def read_json(path: Path, max_bytes: int | None = None) -> Any:
    """Read a JSON file.

    UserError, with the command to run, if it is missing, invalid or above `max_bytes`.
    """
    if not path.exists():
        raise UserError(f"{path}: not there; {made_by(path)}")
    try:
        return json.loads(read_plain(path, max_bytes).decode())
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON ({e}); {made_by(path)}") from None


def suggest_file(path: Path, known: Sequence[str] = (), otherwise: str = "correct the path") -> str:
    """Return what to do about a path that is wrong: the most similar name.

    Compared are the names in its folder, and those in `known`.
    """
    names = [*known]
    with suppress(OSError):
        names += sorted(file.name for file in islice(path.parent.iterdir(), MAX_COMPARED_FILES))
    similar = most_similar(path.name, names)
    return f"did you mean {similar}?" if similar not in ("", path.name) else otherwise


def require_plain(path: Path, max_bytes: int | None = None) -> Path:
    """Return `path`; raise UserError unless it is a regular file of at most `max_bytes`."""
    # external files are checked here before they are opened: pipes and devices may block forever
    if not path.is_file():
        fault = "not a plain file but a folder, pipe or device" if path.exists() else "no such file"
        raise UserError(f"{path}: {fault}; {suggest_file(path)}")
    if max_bytes is None:
        return path

    size = path.stat().st_size
    if size > max_bytes:
        raise UserError(
            f"{path}: {size:,} bytes, and files of this kind have at most {max_bytes:,}; "
            "is it the right one?"
        )
    return path


def open_plain(path: Path, max_bytes: int | None = None) -> BufferedReader:
    """Open a file for reading; raise UserError unless it is a regular one of at most `max_bytes`.

    A pipe that takes its place in between does not block either.
    """
    require_plain(path, max_bytes)
    descriptor = os.open(path, os.O_RDONLY | NO_WAIT | BINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        require_plain(path)
        raise UserError(f"{path}: was replaced while it was opened; run again")
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a regular file; raise UserError for others and above `max_bytes`."""
    with open_plain(path, max_bytes) as file:
        return file.read()


def present(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: not there; {made_by(path)}")
    return list(paths)


def made_by(path: Path) -> str:
    """Return the command of the stage whose folder a missing or damaged file lies in."""
    stages = {file.stem for file in STAGES_FOLDER.glob("*.py")} - NO_STAGES
    parts = path.parts
    for i in [*range(len(parts) - 2, 0, -1), len(parts) - 1]:
        if i > 0 and parts[i - 1] in stages:
            return f"run `alignrec {parts[i - 1]} {parts[i]}` first"
    return "make or fetch it again"


def next_to(path: Path, ending: str) -> Path:
    """Return a hidden name next to a path, for unfinished work.

    UserError for the root of the file system.
    """
    path = path.absolute()
    if not path.name:
        raise UserError(f"{path}: cannot create a folder there; name one inside it")
    return path.with_name(f".{path.name}.{ending}")


def list_plain(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder that match, without those named _ or . at the start."""
    return [
        require_plain(path) for path in sorted(folder.glob(pattern)) if path.name[0] not in "._"
    ]


def files_below(folder: Path) -> list[Path]:
    """Return a stage's files, without its record, hidden files and signatures."""
    files = []
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        is_output = not any(name.startswith(".") or name in (RECORD, COST) for name in names)
        # links to folders, and pipes, are refused when they are read
        is_folder = path.is_dir() and not path.is_symlink()
        if is_output and path.suffix != ".sig" and not is_folder:
            files.append(path)
    return files


def sha256(path: Path) -> str:
    """Return the hash of a file, from a cache unless the file has changed."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        require_plain(path)
    return _hash_cached(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _hash_cached(path: Path, *state: int) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256s(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(sha256, paths))


def digest(paths: Iterable[Path]) -> str:
    """Return one hash of several files: of their names and contents, in order."""
    files = list(paths)
    total = hashlib.sha256()
    for path, file_hash in zip(files, sha256s(files), strict=True):
        total.update(f"{path.name} {file_hash}\n".encode())
    return total.hexdigest()
