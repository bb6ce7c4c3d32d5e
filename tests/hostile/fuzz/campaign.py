"""Run targets for a given time, each in a child process with limits, and keep the inputs that fail."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[2]))  # what tests share lies there

from alignrec.pipeline.io.errors import one_line
from tests.hostile.fuzz import registry
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import feed

FOUND = Path(__file__).parent.parent / "found"
LONGEST = 10
"""CPU seconds per input"""
PATIENCE = 6
"""wall time per CPU second, as other processes use the machine"""
MEMORY = 1 << 30
"""address space in bytes, above that of the child after one valid input"""
HEAD = 8
"""bytes of the number of an input and its length"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""thread pools would reserve address space that they do not use"""


class Report(NamedTuple):
    """The outcome of a target, and the input at which it failed."""

    inputs: int
    fault: str = ""
    kept: Path | None = None


def run(name: str, seconds: float, first: int = 0, found: Path = FOUND, longest: int = LONGEST) -> Report:
    """Run one target in a child process until time is up or it fails; store a failing input in `found`."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        at = Path(folder)
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.fuzz.campaign", name, str(seconds), str(first), folder, str(longest)],
            env=os.environ | ENVIRONMENT | {"TMPDIR": folder}, capture_output=True, text=True,
        )  # fmt: skip
        stored = (at / "input").read_bytes() if (at / "input").exists() else b""
    number, length = (int.from_bytes(stored[i : i + HEAD]) for i in (0, HEAD))
    if done.returncode == 0:
        return Report(number - first)
    fault, data = _ending(done.returncode, done.stderr, longest), stored[2 * HEAD : 2 * HEAD + length]
    if not stored:  # it did not even start
        return Report(0, fault)
    found.mkdir(exist_ok=True)
    kept = found / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    kept.write_bytes(data)
    return Report(number - first, fault, kept)


def _ending(code: int, errors: str, longest: int) -> str:
    if code in (-signal.SIGALRM, -signal.SIGPROF):
        return f"not done in {longest} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return one_line(errors.strip().rpartition("\n")[2])


def child(name: str, seconds: float, first: int, at: Path, longest: int) -> None:
    """Feed inputs to a target, from number `first` on. File `input` of `at` has the current one, after its number.

    A timer without a handler ends the process, whatever code of C it is in.
    """
    target = registry.target(name)
    feed(target, target.seeds[0])
    under_way = os.open(at / "input", os.O_CREAT | os.O_WRONLY)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end, number = time.monotonic() + seconds, first
    while time.monotonic() < end or number < len(target.seeds):
        data = mutated(name, number, target.seeds)
        number += 1
        # opening a file for each would take most of the time
        os.pwrite(under_way, number.to_bytes(HEAD) + len(data).to_bytes(HEAD) + data, 0)
        signal.setitimer(signal.ITIMER_PROF, longest)
        signal.alarm(PATIENCE * longest)
        feed(target, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


if __name__ == "__main__":
    child(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
