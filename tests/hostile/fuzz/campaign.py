"""Runs targets for a chosen time, each in a child process with limits, and keeps the inputs at which one fails."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import one_line
from tests.hostile.fuzz import registry
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import feed

FOUND = Path(__file__).parent.parent / "found"
LONGEST = 10
"""seconds of processor time an input"""
PATIENCE = 6
"""times as long by the clock, on a machine that others use too"""
MEMORY = 1 << 30
"""bytes of addresses above those of the child after one sound input"""
HEAD = 8
"""bytes that hold the length of an input"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""threads and pools reserve addresses that they do not use"""


class Report(NamedTuple):
    name: str
    inputs: int
    seconds: float
    fault: str = ""
    kept: Path | None = None
    """the input at which it failed"""


def run(name: str, seconds: float, first: int = 0, found: Path = FOUND, longest: int = LONGEST) -> Report:
    """Run one target in a child process until its time is over or it fails; a failing input is kept in `found`."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        at = Path(folder)
        command = [sys.executable, "-m", "tests.hostile.fuzz", name, "--child", folder]
        command += ["--seconds", str(seconds), "--first", str(first), "--longest", str(longest)]
        done = subprocess.run(
            command, env=os.environ | ENVIRONMENT | {"TMPDIR": folder}, capture_output=True, text=True
        )
        state = json.loads((at / "state").read_text()) if (at / "state").exists() else {"inputs": 0, "seconds": 0.0}
        if done.returncode == 0:
            return Report(name, **state)
        fault = _ending(done.returncode, done.stderr, longest)
        if not (at / "input").exists():  # it did not even start
            return Report(name, **state, fault=fault)
        stored = (at / "input").read_bytes()
    data = stored[HEAD : HEAD + int.from_bytes(stored[:HEAD])]
    found.mkdir(exist_ok=True)
    kept = found / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    kept.write_bytes(data)
    return Report(name, **state, fault=fault, kept=kept)


def _ending(code: int, errors: str, longest: int) -> str:
    if code in (-signal.SIGALRM, -signal.SIGPROF):
        return f"not done in {longest} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return one_line(errors.strip().rpartition("\n")[2])


def child(name: str, seconds: float, first: int, at: Path, longest: int) -> None:
    """Feed a target its inputs, from number `first` on. File `input` of `at` has the one under way, `state` the count.

    A timer without a handler ends the process, whatever code of C it is in.
    """
    target = registry.target(name)
    feed(target, target.seeds[0])
    under_way = os.open(at / "input", os.O_CREAT | os.O_WRONLY)
    _limit_memory()
    start = last = time.monotonic()
    number = first
    while (now := time.monotonic()) - start < seconds or number < len(target.seeds):
        if now - last > 1 or number == first:
            last = now
            _note(at, number - first, now - start)
        data = mutated(name, number, target.seeds)
        os.pwrite(under_way, len(data).to_bytes(HEAD) + data, 0)  # opening a file for each would take most of the time
        signal.setitimer(signal.ITIMER_PROF, longest)
        signal.alarm(PATIENCE * longest)
        try:
            feed(target, data)
        except BaseException:
            _note(at, number - first, time.monotonic() - start)
            traceback.print_exc()
            sys.exit(1)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        number += 1
    _note(at, number - first, time.monotonic() - start)


def _note(at: Path, inputs: int, seconds: float) -> None:
    (at / "state").write_text(json.dumps({"inputs": inputs, "seconds": seconds}))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
