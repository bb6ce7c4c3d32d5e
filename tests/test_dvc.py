"""dvc.yaml is the table of contents: it is written from the stages, and says what they say."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import shipped
import yaml

from pipeline.models import MODELS
from stages import project
from stages.order import STAGES
from stages.params import SECTIONS, Params, read

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "dvc.yaml").read_text()
DVC = yaml.safe_load(TEXT)["stages"]
SHOP = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}}


def test_dvc_yaml_is_what_the_stages_say() -> None:
    assert project.dvc_yaml(read(shipped.root() / "params.yaml"), clone=True) == TEXT
    assert list(DVC) == list(STAGES)
    assert all(set(stage) <= {"desc", "matrix", "cmd", "deps", "params", "outs"} for stage in DVC.values())


def test_every_section_is_in_the_parameter_file_and_read_by_a_stage() -> None:
    read_by = {name for stage in DVC.values() for name in stage["params"]}
    shown = yaml.safe_load(project.SECTIONS.read_text())
    assert read_by == {*shown, "sources.${item.dataset}"}
    assert {*shown} <= yaml.safe_load((shipped.root() / "params.yaml").read_text()).keys()
    kinds = SECTIONS | {"train": MODELS["alignrec"].Params}
    for name, keys in shown.items():
        defaults = kinds[name]().model_dump() if name in kinds else {}
        assert {key: defaults[key] for key in keys} == keys


def test_the_page_of_stages_is_what_the_stages_say() -> None:
    page = (ROOT / "docs/stages.md").read_text()
    rows = [line for line in page.splitlines() if line.split("|")[1:2] and line.split("|")[1].strip() in STAGES]
    assert rows == [f"| {stage.name} | {stage.does} | {stage.writes} |" for stage in STAGES.values()]


def test_a_stage_has_one_name_and_reads_earlier_ones() -> None:
    params, order = Params.model_validate(SHOP), list(STAGES)
    for name, stage in STAGES.items():
        assert stage.main.__module__ == f"stages.{name}"
        assert type(getattr(params, name)) is stage.params
        assert all(order.index(other.name) < order.index(name) for other in stage.reads)
    for kind in (MODELS["alignrec"].Params, *(stage.params for stage in STAGES.values() if stage.name != "train")):
        assert kind.speed <= set(kind.model_fields), kind
    assert STAGES["train"].params.speed == MODELS["alignrec"].Params.speed


def test_git_keeps_what_dvc_shows_of_the_first_dataset() -> None:
    """Else `dvc metrics`, `dvc plots` and `dvc metrics diff` fail to load it on a fresh clone."""
    first = yaml.safe_load((shipped.root() / "params.yaml").read_text())["datasets"][0]
    described = yaml.safe_load(TEXT.replace("${datasets[0]}", first))
    plots = (one for plot in described["plots"] for one in plot.values())
    shown = {*described["metrics"], *(path for one in plots for path in one["y"])}
    assert len(shown) == 6
    assert [path for path in shown if not (ROOT / path).is_file()] == []
    ignored = subprocess.run(["git", "check-ignore", *shown], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == ""


def test_the_readme_has_the_figures_that_git_keeps() -> None:
    """`make repro` may put this processor's figures in the place of those; either will do."""
    path = "outputs/figures/sample/metrics.json"
    kept = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("without git it is not known which run README.md shows")
    readme = (ROOT / "README.md").read_text().splitlines()
    (released,) = [line for line in readme if line.startswith("| alignrec | beit3 |")]
    runs = [json.loads(text) for text in (kept.stdout, (ROOT / path).read_text())]
    shown = [[f"{figures[name]:.4f}".removeprefix("0") for name in ("recall@20", "sd", "ndcg@20")] for figures in runs]
    assert any(f"{recall} ± {sd}" in released and ndcg in released for recall, sd, ndcg in shown)


def commit(folder: Path, *paths: str) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", *paths], [*author, "commit", "-q", "-m", "Record the run"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def test_make_repro_says_when_the_record_of_its_run_is_not_the_committed_one(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "hashes.txt", "dvc.lock"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in ("alignrec", "dvc"):  # which leave everything as it is
        path = tmp_path / ".venv/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (tmp_path / ".venv/installed").touch()

    def said() -> str:
        done = subprocess.run(["make", "repro"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    what = "dvc.lock and outputs/figures are of this run, and differ from the commit's"
    assert what not in said()  # without git
    commit(tmp_path, "dvc.lock")
    assert what not in said()
    with (tmp_path / "dvc.lock").open("a") as lock:
        lock.write("# rounded otherwise\n")
    assert what in said()
