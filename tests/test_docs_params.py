"""Parameter files in documents and profiles run as they stand."""

import re
from pathlib import Path

import pytest
import shipped
import yaml

from stages.params import load

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL))
    if {"datasets", "sources"} <= yaml.safe_load(block).keys()
]


def test_the_documents_show_whole_files() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS)
def test_a_file_that_we_show_loads_as_it_stands(tmp_path: Path, block: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(block)
    params = load(path)
    assert [load(path, dataset).datasets for dataset in params.datasets]


@pytest.mark.parametrize("path", sorted((shipped.root() / "profiles").glob("*.yaml")), ids=lambda path: path.name)
def test_a_profile_loads_and_repeats_nothing_of_what_it_is_laid_over(path: Path) -> None:
    params, profile = load(path), yaml.safe_load(path.read_text())
    assert params.datasets
    if "extends" in profile:
        base = yaml.safe_load((path.parent / profile["extends"]).read_text())
        repeated = {
            f"{section}.{key}"
            for section, keys in profile.items()
            if isinstance(keys, dict)
            for key, value in keys.items()
            if value == base.get(section, {}).get(key)
        }
        assert repeated == set()
