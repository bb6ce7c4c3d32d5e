"""The fuzz targets on their seeds and a few mutations, and any file of a release."""

import os
import time
from contextlib import suppress
from itertools import islice

import pytest
from processes import started

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import process
from alignrec.schemas import ContractError
from tests.hostile.fuzz import releases
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import AREAS, feed, targets

SEEDS = 8
"""maximum seeds per target; the tables of this folder have the others"""
NEVER_SOUND = {"signature"}
"""targets without valid inputs: signatures without the key"""


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("area", AREAS)
def test_targets_read_what_is_sound_refuse_what_is_not_and_bear_whatever_comes(area: str) -> None:
    for name, target in targets(area).items():
        print(name)  # shown if it fails
        if name == "any-file":  # whose inputs are fed below, in a process of their own
            continue
        if name not in NEVER_SOUND:
            target.read(target.seeds[0])
        for number, data in enumerate(target.refused):
            start = time.process_time()
            with pytest.raises(target.all_refusals) as e:  # noqa: PT012
                target.read(data)
                pytest.fail(f"input {number} was read")
            assert (len(str(e.value)) < 2000, str(e.value).isprintable()) == (True, True), number
            assert time.process_time() - start < 5, number
        for number in (*range(len(target.others))[:SEEDS], *range(len(target.seeds), len(target.seeds) + target.quick)):
            feed(target, mutated(name, number, target.seeds))


EACH = 40 if "CAMPAIGN" in os.environ else 1


def read_all(each: int, step: int) -> None:
    releases.read_everything(releases.release())
    print("peak:", process.peak_mib())
    for data in islice(releases.altered(each), 0, None, step):
        try:
            with suppress(UserError, ContractError):
                releases.attack(data)
        except Exception as e:
            print("fault:", data.partition(b"\0")[0].decode(), repr(e)[:200])
    print("peak:", process.peak_mib())


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_any_file_of_a_release_ends_in_one_line_or_a_right_result(step: int) -> None:
    """All, within twice the memory of the valid release, which is read first, in one process."""
    done = started(read_all, EACH, step)
    output, errors = done.communicate()
    assert done.returncode == 0, errors[-3000:]
    said = output.splitlines()  # stages, which make the release, say more
    assert [line for line in said if line.startswith("fault:")] == []
    first, last = (int(line.partition(" ")[2]) for line in said if line.startswith("peak:"))
    assert step > 1 or last <= 2 * first
