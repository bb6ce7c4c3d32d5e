"""dvc.yaml is the table of contents: it says what stages/needs.py and the imports say, and no more."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline import code
from pipeline.encode.registry import ENCODERS
from pipeline.features.registry import FEATURES
from pipeline.layout import STAGES
from pipeline.models import MODELS
from pipeline.params import Params
from pipeline.probe.registry import PROBES
from pipeline.registry import Registry
from pipeline.semantic_ids.registry import METHODS
from pipeline.sources.registry import SOURCES
from stages import needs

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "dvc.yaml").read_text()
DVC = yaml.safe_load(TEXT)["stages"]
PARTS: dict[str, tuple[Registry, ...]] = {
    "download": (SOURCES,),
    "interactions": (SOURCES,),
    "items": (SOURCES,),
    "pretrain": (ENCODERS, FEATURES),
    "encode": (SOURCES, ENCODERS, FEATURES),
    "probe": (PROBES,),
    "benchmark": (SOURCES, MODELS),
    "study": (SOURCES, MODELS, PROBES, ENCODERS, FEATURES),
    "semantic_ids": (PROBES, METHODS),
    "report": (PROBES,),
    "publish": (SOURCES, PROBES, ENCODERS),
}
"""stage -> what it loads by name"""


def test_dvc_yaml_lists_the_stages_in_order_about_ten_lines_each() -> None:
    assert list(DVC) == list(STAGES)
    for part in TEXT[TEXT.index("stages:") : TEXT.index("metrics:")].split("\n\n"):
        assert len(part.splitlines()) <= 13


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_are_packages_and_the_stages_that_are_read(stage: str) -> None:
    inputs = [f"outputs/{other}/${{item.dataset}}" for other in STAGES[stage].reads]
    parts = [registry.module(name) for registry in PARTS.get(stage, ()) for name in registry]
    assert DVC[stage]["deps"] == inputs + code.packages(f"stages.{stage}", *parts)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_writes_where_its_name_says(stage: str) -> None:
    folders = [stage, "figures"] if stage == "report" else [stage]
    assert [list(o) for o in DVC[stage]["outs"]] == [[f"outputs/{folder}/${{item.dataset}}"] for folder in folders]
    assert DVC[stage]["cmd"] == f"alignrec {stage} ${{item.dataset}}"


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_does_stands_once(stage: str) -> None:
    assert DVC[stage]["desc"] == f"${{stages.{stage}.does}}"
    assert f"| {stage} | {STAGES[stage].does} | " in (ROOT / "docs/stages.md").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_stages_sections(stage: str) -> None:
    listed = ["source" if name == "sources.${item.dataset}" else name for name in DVC[stage]["params"]]
    assert listed == STAGES[stage].params
    assert {*listed} - {"source"} <= {field.alias or name for name, field in Params.model_fields.items()}


@pytest.mark.parametrize(("section", "keys"), needs.SPEED.items())
def test_keys_that_change_speed_alone_are_keys(section: str, keys: set[str]) -> None:
    kind = MODELS["alignrec"].Params if section == "train" else Params.model_fields[section].annotation
    assert keys <= set(kind.model_fields)  # type: ignore[union-attr]


def test_inputs_come_from_earlier_stages() -> None:
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert all(order.index(other) < order.index(name) for other in stage.reads)


def test_git_keeps_what_dvc_shows_of_the_first_dataset() -> None:
    """Else `dvc metrics`, `dvc plots` and `dvc metrics diff` fail to load it on a fresh clone."""
    first = yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"][0]
    described = yaml.safe_load(TEXT.replace("${datasets[0]}", first))
    shown = {
        *described["metrics"],
        *(path for plot in described["plots"] for one in plot.values() for path in one["y"]),
    }
    assert len(shown) == 6
    assert [path for path in shown if not (ROOT / path).is_file()] == []
    ignored = subprocess.run(["git", "check-ignore", *shown], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == ""


def test_the_readme_has_the_figures_that_dvc_shows() -> None:
    figures = json.loads((ROOT / "outputs/figures/sample/metrics.json").read_text())
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    (released,) = [row for row in rows if row.startswith("| alignrec | beit3 |")]
    (probed,) = [row for row in rows if row.startswith("| beit3 |")]

    def short(name: str, form: str) -> str:
        return f"{figures[name]:{form}}".removeprefix("0")

    assert f"{short('recall@20', '.4f')} ± {short('sd', '.4f')}" in released
    assert short("ndcg@20", ".4f") in released
    assert [short(name, ".3f") for name in ("zero_shot", "item_cf", "content_knn")] == [
        cell.strip().split(",")[0] for cell in probed.split("|")[2:5]
    ]


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
    assert what not in said()  # where there is no git
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "dvc.lock"], [*author, "commit", "-q", "-m", "Record the run"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert what not in said()
    with (tmp_path / "dvc.lock").open("a") as lock:
        lock.write("# rounded otherwise\n")
    assert what in said()
