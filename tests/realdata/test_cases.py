"""Parameter files of the real datasets, and reuse by variants, without reading ../shared."""

from pathlib import Path

import pytest
from realdata import cases

from alignrec.commands.params import load


@pytest.fixture
def known(tmp_path: Path) -> dict[str, cases.Case]:
    return cases.cases(tmp_path)


@pytest.mark.parametrize("name", cases.NAMES)
def test_parameter_files_are_valid(name: str, known: dict[str, cases.Case]) -> None:
    assert load(known[name].params).datasets == [known[name].layout.dataset]
