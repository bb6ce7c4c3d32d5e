"""How OpenMP's threads, those of torch and FAISS, wait for each other: asleep, or spinning while the machine is idle.

On two idle cores spinning takes a quarter off a step of training. Next to one busy process it makes a step twice as
slow as sleeping does (`python -m benchmarks busy`). So a stage looks before it loads torch.
"""

import os
import time
from pathlib import Path

POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
TURNS = "10000"  # of a loop, then a thread sleeps: as fast as OpenMP's 300,000, and gentler if the machine gets busy
LOOK = 0.05  # seconds
IDLE = 0.9
"""idle share of processor time, while this process sleeps, above which the machine counts as idle"""
TIMES = Path("/proc/stat")
_theirs = bool({POLICY, SPINS} & os.environ.keys())


def let_threads_sleep() -> None:
    """Let threads sleep, unless the user said how they wait. OpenMP reads it when it is loaded, before any choice."""
    os.environ.setdefault(POLICY, "PASSIVE")


def spin_if_idle() -> None:
    """Let threads spin if the machine is idle, unless the user chose how they wait; only on Linux."""
    if _theirs or not TIMES.exists():
        return
    before = TIMES.read_text()
    time.sleep(LOOK)
    if idle_share(before, TIMES.read_text()) >= IDLE:
        os.environ[SPINS] = TURNS


def idle_share(before: str, after: str) -> float:
    """Return the idle share of processor time between two states of /proc/stat (proc_stat(5))."""
    first, last = ([int(n) for n in text.split("\n", 1)[0].split()[1:9]] for text in (before, after))
    passed = [b - a for a, b in zip(first, last, strict=True)]  # user, nice, system, idle, iowait, irq, softirq, steal
    return (passed[3] + passed[4]) / max(sum(passed), 1)
