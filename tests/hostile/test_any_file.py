"""Any byte or number of any file of a release, its manifest right: one line or a right result, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EACH = 40 if "CAMPAIGN" in os.environ else 1
READ = """
import sys
from contextlib import suppress
from pathlib import Path
sys.path.append(str(Path("tests").resolve()))
from pipeline import memory
from pipeline.errors import UserError
from schemas import ContractError
from tests.hostile.fuzz import encoders, whole
whole.everything(encoders.release())
print("peak:", memory.peak_mib())
for data in whole.altered(int(sys.argv[1])):
    try:
        with suppress(UserError, ContractError):
            whole.read(data)
    except Exception as e:
        print("fault:", data.partition(whole.BETWEEN)[0].decode(), repr(e)[:200])
print("peak:", memory.peak_mib())
"""


def test_any_file_of_a_release_ends_in_one_line_or_a_right_result() -> None:
    """In twice the memory that the sound release takes, which is read first, all in one process."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", READ, str(EACH)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()  # stages, which make the release, say more
    assert [line for line in said if line.startswith("fault:")] == []
    first, last = (int(line.partition(" ")[2]) for line in said if line.startswith("peak:"))
    assert last <= 2 * first
