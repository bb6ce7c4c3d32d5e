"""Wait policy of OpenMP threads (torch, FAISS): sleep, or spin if the machine is idle."""

import os
import time
from pathlib import Path

POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
TURNS = "10000"  # spins before a thread sleeps: as fast as OpenMP's default of 300,000, and cheaper on a busy machine
LOOK = 0.05  # seconds over which the load is measured
IDLE = 0.9  # minimum idle fraction of CPU time at which the machine counts as idle
TIMES = Path("/proc/stat")
_theirs = bool({POLICY, SPINS} & os.environ.keys())


def let_threads_sleep() -> None:
    """Default OMP_WAIT_POLICY to PASSIVE. Must be called before torch or FAISS load OpenMP."""
    os.environ.setdefault(POLICY, "PASSIVE")


def spin_if_idle() -> None:
    """Let threads spin if the machine is idle, unless the user has set a policy. Linux only."""
    # on two idle cores spinning takes 25 % off a training step; next to one busy process a step takes twice as long
    if _theirs or not TIMES.exists():
        return
    before = TIMES.read_text()
    time.sleep(LOOK)
    if idle_share(before, TIMES.read_text()) >= IDLE:
        os.environ[SPINS] = TURNS


def idle_share(before: str, after: str) -> float:
    """Return the idle fraction of CPU time between two states of /proc/stat, see proc_stat(5)."""
    first, last = ([int(n) for n in text.split("\n", 1)[0].split()[1:9]] for text in (before, after))
    passed = [b - a for a, b in zip(first, last, strict=True)]  # user, nice, system, idle, iowait, irq, softirq, steal
    return (passed[3] + passed[4]) / max(sum(passed), 1)
