"""Two faults of each kind of `make faults`, in a process with the library that makes them."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.hostile import disk

FAULTS = 2 * len(disk.FAULTS)
ROOT = Path(__file__).parents[2]


def test_a_disk_that_fails_costs_a_line_and_the_next_run_restores_every_byte(tmp_path: Path) -> None:
    library = disk.compiled(tmp_path)
    if library is None:
        pytest.skip("no 64-bit Linux, or no C compiler called cc")
    environment = os.environ | {"LD_PRELOAD": str(library), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.hostile.disk", "--faults", str(FAULTS)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    counted, last = done.stdout.splitlines()
    assert last == f"{FAULTS} faults, 0 wrong"
    assert all(json.loads(counted)["by_kind"].get(kind, 0) > 10 for kind in disk.FAULTS)


def test_a_sample_has_faults_of_every_kind() -> None:
    faults = [disk.Fault(0, kind, number) for kind in disk.FAULTS for number in range(1, 50)]
    chosen = disk.choose(faults, FAULTS, 0)
    assert Counter(fault.kind for fault in chosen) == dict.fromkeys(disk.FAULTS, 2)
    assert chosen == disk.choose(faults, FAULTS, 0) != disk.choose(faults, FAULTS, 1)
