"""Where files lie and how OpenMP's threads wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import waiting
from pipeline.layout import File, Layout
from stages.order import STAGES


def test_every_file_lies_in_a_stages_folder_of_its_dataset() -> None:
    layout = Layout(Path("outputs"), "shop")
    folders = {of(stage) for stage in STAGES for of in (layout.folder, layout.work)}
    named = {name for name, kind in vars(Layout).items() if isinstance(kind, property | File)}
    assert len(named) > 20
    for name in named - {"published", "encoder"}:
        path = getattr(layout, name)
        assert folders & {path, *path.parents}, name
    assert layout.encoder.folder in folders
    assert len({layout.run_record(stage) for stage in STAGES}) == len(STAGES)


BEFORE = "cpu  1000 20 300 90000 40 5 6 7 0 0\ncpu0 500 10 150 45000 20 2 3 3 0 0\n"
IDLE = "cpu  1000 20 301 90008 41 5 6 7 0 0\ncpu0 500 10 150 45005 20 2 3 3 0 0\n"
BUSY = "cpu  1005 20 300 90005 40 5 6 7 0 0\ncpu0 505 10 150 45000 20 2 3 3 0 0\n"
CHOOSE = """
import os, sys
from pipeline import waiting
class Times:
    def exists(self): return True
    def read_text(self): return states.pop(0)
states, waiting.TIMES = sys.argv[1:], Times()
waiting.choose()
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("state", "given", "policy"),
    [
        (IDLE, {}, "PASSIVE 10000"),
        (BUSY, {}, "PASSIVE None"),
        (IDLE, {"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE None"),
        (IDLE, {"GOMP_SPINCOUNT": "77"}, "PASSIVE 77"),
    ],
    ids=["idle", "busy", "a user's policy", "a user's count"],
)
def test_threads_spin_on_an_idle_machine_unless_the_user_chose(state: str, given: dict[str, str], policy: str) -> None:
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", CHOOSE, BEFORE, state]
    assert subprocess.check_output(command, env=own | given, text=True).strip() == policy
    assert [waiting.idle(BEFORE, after) for after in (IDLE, BUSY, BEFORE)] == [0.9, 0.5, 0]
