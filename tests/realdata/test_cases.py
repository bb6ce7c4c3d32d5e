"""Parameter files of the real datasets, and what a variant reuses; none of it reads ../shared."""

import os
import shutil
from pathlib import Path

import pytest
from realdata import cases

from pipeline import io
from stages.params import load


@pytest.fixture
def known(tmp_path: Path) -> dict[str, cases.Case]:
    return cases.cases(tmp_path)


@pytest.mark.parametrize("name", cases.NAMES)
def test_parameter_files_are_valid(name: str, known: dict[str, cases.Case]) -> None:
    assert load(known[name].params).datasets == [known[name].layout.dataset]


def test_a_variant_begins_with_the_newer_outputs_of_its_base(known: dict[str, cases.Case]) -> None:
    case, base = known["movies_cold"], known["movies"].layout
    for stage in ("encode", "train"):
        io.write_json(base.run_record(stage), {"made": "by movies"})
        case.adopt(stage)
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies"}
    assert not case.layout.run_record("train").exists()  # it depends on the split

    io.write_json(case.layout.run_record("encode"), {"made": "by movies_cold"})
    times = base.run_record("encode").stat().st_mtime
    os.utime(case.layout.run_record("encode"), (times + 9, times + 9))
    case.adopt("encode")
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies_cold"}

    os.utime(base.run_record("encode"), (times + 99, times + 99))
    case.adopt("encode")
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies"}
    shutil.rmtree(base.root / "encode")
    case.adopt("encode")
    assert case.layout.run_record("encode").exists()
