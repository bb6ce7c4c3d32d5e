"""Processes that share the suite find the same tests: ids know no clock, no address of an object, no order of sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COLLECT = """
import sys, time, pytest
now = time.time
time.time = lambda: now() + float(sys.argv[1])
sys.exit(pytest.main(["--collect-only", "-p", "no:cacheprovider"]))
"""


def collecting(seed: str, later: float) -> subprocess.Popen[str]:
    """Begin to list the suite's tests, with hashes of a seed and a clock that is some seconds fast."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command, environment = [sys.executable, "-c", COLLECT, str(later)], plain | {"PYTHONHASHSEED": seed}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **out)


@pytest.mark.slow
def test_two_processes_find_the_same_tests_at_different_times() -> None:
    both = [collecting("1", 0), collecting("2", 100_000)]
    one, other = ([line for line in p.communicate()[0].splitlines() if "::" in line] for p in both)
    assert [p.returncode for p in both] == [0, 0], (one or other)[-20:]
    assert len(one) > 1000
    assert one == other
