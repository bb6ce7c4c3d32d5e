"""`make fuzz MINUTES=60`: run the parsers of untrusted data on hostile inputs.

The time is shared equally among the targets. Each input has 10 seconds and 1 GiB, in a child process. An input at which
a target fails is kept in tests/hostile/found; a name and `--first` give the same inputs again, and others with another
number.
"""

import argparse
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # what tests share lies there

from alignrec.pipeline.io.errors import one_line
from alignrec.pipeline.runtime.section import nearest
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import AREAS, feed, targets

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help="all by default")
    parser.add_argument("--minutes", type=float, default=60, help="of all targets together")
    parser.add_argument("--first", type=int, default=0, help="number of the first input; the seeds come first")
    given = parser.parse_args()
    known = {name: area for area in AREAS for name in targets(area)}
    names, failed = given.target or [*known], []
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no fuzz target '{unknown[0]}'{nearest(unknown[0], known)}")
    for name in names:
        inputs, outcome = run(known[name], name, 60 * given.minutes / len(names), given.first)
        failed += [name] if outcome else []
        print(f"{name:<20}{inputs:>10,} inputs   {outcome or 'sound'}", flush=True)
    print(" ".join([f"{len(names)} targets, {len(failed)} failed", *failed]))
    return 1 if failed else 0


def run(area: str, name: str, seconds: float, first: int) -> tuple[int, str]:
    """Run one target in a child process until time is up or it fails; return the number of inputs, and what failed."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        code = f"from tests.hostile.fuzz.__main__ import child; child{(area, name, seconds, first, folder)!r}"
        environment = os.environ | ENVIRONMENT | {"TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        under_way = Path(folder) / "input"
        stored = under_way.read_bytes() if under_way.exists() else b""
    number, length = (int.from_bytes(stored[i : i + HEAD]) for i in (0, HEAD))
    if done.returncode == 0:
        return number - first, ""
    fault = one_line(done.stderr.strip().rpartition("\n")[2])
    if done.returncode < 0:
        fault = f"ended by {signal.Signals(-done.returncode).name}, as after {LONGEST} s of an input by SIGPROF"
    if not stored:  # it did not even start
        return 0, fault
    data = stored[2 * HEAD : 2 * HEAD + length]
    FOUND.mkdir(exist_ok=True)
    kept = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    kept.write_bytes(data)
    return number - first, f"{fault}; kept as {kept}"


def child(area: str, name: str, seconds: float, first: int, folder: str) -> None:
    """Feed inputs to a target, from number `first` on. File `input` of `folder` has the current one, after its number.

    A timer without a handler ends the process, whatever code of C it is in.
    """
    target = targets(area)[name]
    feed(target, target.seeds[0])
    under_way = os.open(Path(folder) / "input", os.O_CREAT | os.O_WRONLY)
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
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        signal.alarm(PATIENCE * LONGEST)
        feed(target, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main())
