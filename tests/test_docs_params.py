"""Parameter files in documents and profiles run as they stand: we load them, and DVC has every parameter it wants."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.dependency.param import MissingParamsError, ParamsDependency
from dvc.repo import Repo

from pipeline import mend
from stages.params import load

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL))
    if {"datasets", "sources"} <= yaml.safe_load(block).keys()
]
PROFILES = [pytest.param(path.read_text(), id=path.name) for path in sorted((ROOT / "profiles").glob("*.yaml"))]


def read_by_dvc(folder: Path) -> None:
    """Read every parameter of every stage, as `dvc repro` does; MissingParamsError if one is not there."""
    stages = Repo(str(folder)).index.stages
    assert len(stages) == len(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for stage in stages:
        for dependency in stage.deps:
            if isinstance(dependency, ParamsDependency):
                dependency.get_hash()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipeline").mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(ROOT / "pipeline/stages.yaml", tmp_path / "pipeline")
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_the_documents_show_whole_files() -> None:
    assert len(BLOCKS) >= 3
    assert PROFILES


@pytest.mark.parametrize("block", BLOCKS + PROFILES)
def test_a_file_that_we_show_runs_as_it_stands(project: Path, block: str) -> None:
    path = project / "params.yaml"
    path.write_text(block)
    load(path)
    read_by_dvc(project)


def test_mend_adds_the_sections_that_a_file_lacks(project: Path) -> None:
    path = project / "params.yaml"
    written = "datasets: [shop]  # mine\nsources: {shop: {kind: sample}}\ntrain: {lr: 1e-3}"
    path.write_text(written)
    with pytest.raises(MissingParamsError):
        read_by_dvc(project)
    assert "download" in mend.complete(path)
    read_by_dvc(project)
    assert path.read_text().startswith(written)
    assert load(path).train.lr == 1e-3
    assert mend.complete(path) == []


@pytest.mark.parametrize("text", ["{datasets: [shop], sources: {}}", "- 1", "datasets: [", "", "just text"])
def test_mend_leaves_a_file_alone_that_it_cannot_add_to(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert mend.complete(path) == []
    assert path.read_text() == text
    assert mend.complete(tmp_path / "absent.yaml") == []
