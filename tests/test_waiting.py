"""How OpenMP's threads wait: spinning on an idle machine, asleep on a busy one, and as the user says on both."""

import os
import subprocess
import sys

import pytest

from pipeline import waiting

BEFORE = "cpu  1000 20 300 90000 40 5 6 7 0 0\ncpu0 500 10 150 45000 20 2 3 3 0 0\n"
IDLE = "cpu  1000 20 301 90008 41 5 6 7 0 0\ncpu0 500 10 150 45005 20 2 3 3 0 0\n"
BUSY = "cpu  1005 20 300 90005 40 5 6 7 0 0\ncpu0 505 10 150 45000 20 2 3 3 0 0\n"


def test_the_share_of_time_that_nobody_used() -> None:
    assert waiting.idle(BEFORE, IDLE) == 0.9
    assert waiting.idle(BEFORE, BUSY) == 0.5
    assert waiting.idle(BEFORE, BEFORE) == 0


def spins(states: list[str], **given: str) -> str:
    """Return what a process says of its threads, whose machine has these states, one after the other."""
    code = """
import os, sys
from pipeline import waiting
class Times:
    def exists(self): return True
    def read_text(self): return states.pop(0)
states, waiting.TIMES = sys.argv[1:], Times()
waiting.choose()
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""
    without = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", code, *states], env=without | given, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("states", "given", "said"),
    [
        ([BEFORE, IDLE], {}, "PASSIVE 300000"),
        ([BEFORE, BUSY], {}, "PASSIVE None"),
        ([BEFORE, IDLE], {"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE None"),
        ([BEFORE, IDLE], {"GOMP_SPINCOUNT": "77"}, "PASSIVE 77"),
    ],
    ids=["idle", "busy", "a user's policy", "a user's count"],
)
def test_an_idle_machine_spins_unless_the_user_says_how(states: list[str], given: dict[str, str], said: str) -> None:
    assert spins(states, **given) == said
