"""Any byte or number of any file of a release, its manifest right: one line or a right result, in bounded memory."""

from __future__ import annotations

import os
from contextlib import suppress

from processes import started

from pipeline import memory
from pipeline.errors import UserError
from schemas import ContractError
from tests.hostile.fuzz import releases

EACH = 40 if "CAMPAIGN" in os.environ else 1


def read_all(each: int) -> None:
    releases.read_everything(releases.release())
    print("peak:", memory.peak_mib())
    for data in releases.altered(each):
        try:
            with suppress(UserError, ContractError):
                releases.attack(data)
        except Exception as e:
            print("fault:", data.partition(b"\0")[0].decode(), repr(e)[:200])
    print("peak:", memory.peak_mib())


def test_any_file_of_a_release_ends_in_one_line_or_a_right_result() -> None:
    """In twice the memory that the sound release takes, which is read first, all in one process."""
    done = started(read_all, EACH)
    output, errors = done.communicate()
    assert done.returncode == 0, errors[-3000:]
    said = output.splitlines()  # stages, which make the release, say more
    assert [line for line in said if line.startswith("fault:")] == []
    first, last = (int(line.partition(" ")[2]) for line in said if line.startswith("peak:"))
    assert last <= 2 * first
