"""Parameter files in documents and profiles run as they stand."""

import re
from pathlib import Path

import shipped
import yaml

from stages.params import load

ROOT = Path(__file__).parent.parent


def test_files_that_we_show_load_as_they_stand(tmp_path: Path) -> None:
    pages = [(ROOT / "README.md").read_text(), *(page.read_text() for page in (ROOT / "docs").glob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    whole = [block for block in blocks if {"datasets", "sources"} <= yaml.safe_load(block).keys()]
    assert len(whole) >= 3
    path = tmp_path / "params.yaml"
    for block in whole:
        path.write_text(block)
        params = load(path)
        assert [load(path, dataset).datasets for dataset in params.datasets]


def test_profiles_load_and_repeat_nothing_of_what_they_are_laid_over() -> None:
    for path in sorted((shipped.root() / "profiles").glob("*.yaml")):
        params, profile = load(path), yaml.safe_load(path.read_text())
        assert params.datasets, path
        base = yaml.safe_load((path.parent / profile["extends"]).read_text()) if "extends" in profile else {}
        repeated = {
            f"{section}.{key}"
            for section, keys in profile.items()
            if isinstance(keys, dict)
            for key, value in keys.items()
            if value == base.get(section, {}).get(key)
        }
        assert repeated == set(), path
