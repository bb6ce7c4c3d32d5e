"""The fuzz targets, each on its seeds and a few other inputs; and the campaign, which notices every kind of fault."""

import sys
import time
from pathlib import Path

import pytest

from tests.hostile.fuzz import campaign, registry
from tests.hostile.fuzz.__main__ import main
from tests.hostile.fuzz.mutate import LONGEST, mutated
from tests.hostile.fuzz.target import feed

SEEDS = 8
"""upper bound per target: the tables of this folder have the others"""
NEVER_SOUND = {"redirect", "signature"}
"""a server that leads to itself, and signatures without the key"""


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("name", sorted(registry.TARGETS.keys() - {"any-file"}))  # which test_any_file.py feeds
def test_a_target_reads_what_is_sound_refuses_what_is_not_and_bears_whatever_comes(name: str) -> None:
    target = registry.target(name)
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


def test_inputs_follow_from_name_and_number() -> None:
    assert {area: list(registry.targets(area)) for area in registry.AREAS} == dict(registry.AREAS)
    seeds = [b"a" * 100, b"b" * 100]
    inputs = [mutated("x", number, seeds) for number in range(500)]
    assert inputs == [mutated("x", number, seeds) for number in range(500)]
    assert inputs[:2] == seeds
    assert len(set(inputs)) > 490
    assert max(map(len, inputs)) <= LONGEST
    assert inputs[2:] != [mutated("y", number, seeds) for number in range(2, 500)]


FAULTS = {
    "crash": "ended by SIGSEGV", "hang": "not done in 1 s", "memory": "MemoryError",
    "error": "ValueError: invalid literal for int() with base 10: 'x'",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_campaign_notices_a_fault_and_keeps_the_input(name: str, tmp_path: Path) -> None:
    report = campaign.run(f"fault-{name}", 0, 0, tmp_path / "found", longest=1)
    assert report.kept is not None
    assert report.kept.parent == tmp_path / "found"
    assert (report.fault, report.kept.read_bytes(), report.inputs) == (FAULTS[name], name.encode(), 2)


def test_the_command_runs_targets_and_says_how_they_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--minutes", "0.01", "columns"])
    assert main() == 0
    line, total = capsys.readouterr().out.splitlines()
    assert (line.split()[0], line.split()[-1]) == ("columns", "sound")
    assert total == "1 targets, 0 failed"
    monkeypatch.setattr(sys, "argv", ["fuzz", "colums"])
    assert main() == 2
    assert "'columns'" in capsys.readouterr().err
