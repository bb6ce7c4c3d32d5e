"""dvc.yaml is generated from the stages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import toyproject
import yaml

from alignrec.commands import project
from alignrec.commands.params import SECTIONS, Params, read
from alignrec.pipeline.models import MODELS
from alignrec.stages.order import STAGES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "dvc.yaml").read_text()
DVC = yaml.safe_load(TEXT)["stages"]
OUT = "outputs/{}/${{item.dataset}}"
SHOP = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}}


def test_dvc_yaml_is_what_the_stages_say() -> None:
    assert project.dvc_yaml(read(toyproject.shipped() / "params.yaml")) == TEXT
    assert list(DVC) == [*STAGES, "figures"]
    assert all(set(stage) <= {"desc", "matrix", "cmd", "deps", "params", "outs"} for stage in DVC.values())
    assert all(path.startswith("outputs/") for stage in DVC.values() for path in stage.get("deps", []))


def test_code_json_has_the_code_of_each_stage() -> None:
    assert STAGES.keys() <= json.loads((ROOT / "code.json").read_text()).keys()  # .ci/stale.py compares hashes
    assert [DVC[name]["params"][-1] for name in STAGES] == [{"code.json": [name]} for name in STAGES]


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *author, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with this clone's code, the code.json of before an edit, and the hook of `make init`."""
    toyproject.copied(tmp_path)
    for name in (".ci", "Makefile"):
        subprocess.run(["cp", "-r", ROOT / name, tmp_path], check=True)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".gitignore").write_text("__pycache__/\n/.venv\n")
    (tmp_path / "code.json").write_text(json.dumps(project.code_json() | {"graph": "0" * 64}))

    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "A clone")
    subprocess.run(["make", "-s", "hook"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_hook_names_the_stages_of_a_stale_code_json(clone: Path) -> None:
    with (clone / "stages/graph.py").open("a") as file:
        file.write("# which changes no hash\n")
    git(clone, "add", "stages")
    (clone / "code.json").write_text(json.dumps(project.code_json()))

    refused = git(clone, "commit", "-q", "-m", "Without code.json, which is not staged")
    assert refused.returncode == 1
    fault = "error: code.json is stale: the code of graph was edited"
    assert refused.stderr == f"{fault}; run `make init`, then `git add code.json`\n"

    git(clone, "add", "code.json")
    done = git(clone, "commit", "-q", "-m", "With code.json")
    assert (done.returncode, done.stderr) == (0, "")


def test_local_files_are_dependencies() -> None:
    sources = {"a": {"kind": "amazon2014", "category": "Baby"}, "b": {"kind": "tabular", "interactions": "r.csv"}}
    for names, deps in ((["a"], []), (["b"], ["r.csv"]), (["a", "b"], ["r.csv"])):
        params = {"datasets": names, "sources": sources, "images": {"folder": "pictures"}}
        plan = yaml.safe_load(project.dvc_yaml(Params.model_validate(params)))["stages"]
        assert plan["download"].get("deps", []) == deps
        assert plan["images"]["deps"] == [OUT.format("download"), OUT.format("items"), "pictures"]


def test_every_section_is_in_the_parameter_file_and_read_by_a_stage() -> None:
    read_by = {name.split(".")[0] for stage in STAGES for name in DVC[stage]["params"] if isinstance(name, str)}
    shown = yaml.safe_load(project.SECTIONS.read_text())
    assert read_by == {*shown, "sources"}
    assert {name for name in STAGES if "train.features" in DVC[name]["params"]} == {"probe", "report", "publish"}
    assert {*shown} <= yaml.safe_load((toyproject.shipped() / "params.yaml").read_text()).keys()
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
        assert stage.main.__module__ == f"alignrec.stages.{name}"
        assert type(getattr(params, name)) is stage.params
        assert all(order.index(other.name) < order.index(name) for other in stage.reads)
    for kind in (MODELS["alignrec"].Params, *(stage.params for stage in STAGES.values() if stage.name != "train")):
        assert kind.speed <= set(kind.model_fields), kind
    assert STAGES["train"].params.speed == MODELS["alignrec"].Params.speed


def test_git_keeps_what_dvc_shows_of_the_first_dataset() -> None:
    """Otherwise `dvc metrics`, `dvc plots` and `dvc metrics diff` cannot load it on a fresh clone."""
    first = yaml.safe_load((toyproject.shipped() / "params.yaml").read_text())["datasets"][0]
    described = yaml.safe_load(TEXT.replace("${datasets[0]}", first))
    plots = (one for plot in described["plots"] for one in plot.values())
    shown = {*described["metrics"], *(path for one in plots for path in one["y"])}
    assert shown == {path.replace("${item.dataset}", first) for out in DVC["figures"]["outs"] for path in out}
    assert [path for path in shown if not (ROOT / path).is_file()] == []
    ignored = subprocess.run(["git", "check-ignore", *shown], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == ""
