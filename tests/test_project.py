"""`alignrec new` makes any folder a project for DVC."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import alignrec
from PIL import Image
from toyproject import run

from alignrec.commands import project
from alignrec.commands.params import read
from alignrec.pipeline.runtime import code
from alignrec.stages.order import STAGES

ROOT = Path(__file__).parent.parent
FIVE_LINES = """datasets: [shop]
sources: {shop: {kind: sample, users: 60, items: 40}}
interactions: {user_core: 2, item_core: 2}
pretrain: {size: small, steps: 0}
benchmark: {ks: [5]}
"""


pytestmark = pytest.mark.usefixtures("shims")


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder outside of any repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")


def begun(*arguments: str, cwd: Path, **changed: str) -> list[str]:
    """Return the output of a successful command, by default `new`."""
    done = alignrec(*(arguments or ["new"]), cwd=cwd, **changed)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def files(folder: Path) -> None:
    """Write ratings of 40 users and 30 items of two tastes, with titles and images."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = [(u, i, t) for u in range(40) for t, i in enumerate(rng.permutation(range(u % 2, 30, 2))[:9])]
    (folder / "ratings.csv").write_text("user,item,timestamp\n" + "".join(f"u{u},i{i},{t}\n" for u, i, t in rows))
    lines = (f"i{i},{'red wool' if i % 2 else 'blue steel'} thing {i},images/{i}.png\n" for i in range(30))
    (folder / "items.csv").write_text("item,title,image\n" + "".join(lines))
    for i in range(30):
        colour = (200, 5 * i, 0) if i % 2 else (0, 5 * i, 200)
        Image.new("RGB", (24, 24), colour).save(folder / f"images/{i}.png")


NEW = ("new", "mine", "--interactions", "ratings.csv", "--items", "items.csv")


def test_an_empty_folder_becomes_a_project(tmp_path: Path) -> None:
    files(tmp_path)
    lines = begun(*NEW, cwd=tmp_path)
    assert "wrote dvc.yaml" in lines
    assert lines[-1].startswith("next: dvc repro")
    assert {"git init: the folder is a repository now", "dvc init"} <= set(lines)
    stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    assert stages["download"]["deps"] == ["ratings.csv", "items.csv"]
    assert "dvc add ratings.csv: `dvc push` hands it on" in lines
    assert stages["graph"]["params"] == ["graph", {"code.json": ["graph"]}]
    assert stages["graph"]["deps"] == [f"outputs/{name}/${{item.dataset}}" for name in ("encode", "beit3", "combine")]
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert json.loads((tmp_path / "code.json").read_text()) == json.loads((ROOT / "code.json").read_text())
    assert {*STAGES, "search", "encoders"} <= params.keys()
    assert read(tmp_path / "params.yaml").semantic_ids.for_items(30).codes <= 30  # what is shown leaves it to the data
    templates = (f".dvc/plots/{template.name}" for template in (ROOT / ".dvc/plots").iterdir())
    for name in (".dvc/config", ".dvcignore", "outputs/.gitignore", *templates):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    due = run("dvc", "repro", "--dry", "--force", cwd=tmp_path)  # before anything ran
    ran = [line.split()[2] for line in due.splitlines() if line.startswith("> alignrec ")]
    assert [*dict.fromkeys(ran)] == [*STAGES]
    again = alignrec(*NEW, cwd=tmp_path)
    assert (again.exit_code, again.stdout, again.stderr.count("\n")) == (1, "", 1)
    assert "--force" in again.stderr
    assert not [line for line in begun(*NEW, "--force", cwd=tmp_path) if "git init" in line]


def test_without_git_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(FIVE_LINES)
    done = alignrec("new", cwd=tmp_path, PATH="")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "git is not installed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.usefixtures("with_dvc")
def test_a_project_lists_an_encoder_as_dvc_needs_its_folder(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(FIVE_LINES + "encode: {encoders: []}\n")
    done = alignrec("new", cwd=tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "'encode.encoders' is empty; list tfidf" in done.stderr
    assert not (tmp_path / "dvc.yaml").exists()


@pytest.mark.usefixtures("with_dvc")
def test_an_edited_dvc_yaml_is_kept_and_that_of_another_release_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    (tmp_path / "params.yaml").write_text(FIVE_LINES)
    path.write_text(project.with_mark("  of: {cmd: another release}\n"))
    assert "wrote dvc.yaml" in begun(cwd=tmp_path)
    written = path.read_text()
    edited = written.replace("alignrec graph", "nice alignrec graph")
    for text in ("stages: {}\n", edited, f"vars: [mine.yaml]\n{written}"):
        path.write_text(text)
        assert "dvc.yaml: was edited" in "\n".join(begun(cwd=tmp_path))
        assert path.read_text() == text


@pytest.mark.usefixtures("with_dvc")
def test_a_project_of_another_release_is_named_before_a_stage_runs(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(FIVE_LINES)
    begun(cwd=tmp_path)
    path = tmp_path / "code.json"
    path.write_text(path.read_text().replace(version("alignrec"), "0.0.1"))
    done = alignrec("download", "shop", cwd=tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "code.json: of alignrec 0.0.1" in done.stderr
    assert not (tmp_path / "outputs/.work").exists()


def test_a_stage_warns_of_edited_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(FIVE_LINES)
    hashes = project.code_json() | {"graph": "0" * 64}
    (tmp_path / "code.json").write_text(json.dumps(hashes))
    warning = (
        "warning: code.json: the code of graph was edited since; "
        "DVC takes its outputs for up to date until `alignrec new`"
    )

    assert alignrec("graph", "shop", cwd=tmp_path).stderr.splitlines()[0] == warning
    assert "warning" not in alignrec("items", "shop", cwd=tmp_path).stderr

    monkeypatch.setattr(code, "ROOT", tmp_path / "site-packages/alignrec")  # no code.json: a wheel
    assert "warning" not in alignrec("graph", "shop", cwd=tmp_path).stderr


def test_absent_keys_mean_what_the_data_has(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [a, b]\nsources:\n  a: {kind: sample}\n  b: {kind: tabular, interactions: r.csv}\n")
    of_a, of_b = read(path, "a"), read(path, "b")
    assert of_a.train.features == "beit3"
    assert of_a.semantic_ids.features == ["beit3"]
    assert {"beit3", "minilm", "tfidf", "linear"} <= {*of_a.benchmark.features}
    assert of_b.encode.encoders == []  # without a file of items there is nothing to read
    assert (of_b.train.features, of_b.semantic_ids.features) == ("random", [])
    chosen = "encode: {encoders: [tfidf, minilm]}\nbeit3: {sets: []}\ncombine: {sets: {}}\n"
    path.write_text(path.read_text() + chosen)
    of_a = read(path, "a")
    assert (of_a.train.features, of_a.publish.features) == ("tfidf", ["tfidf", "minilm"])
    path.write_text(path.read_text().replace("combine: {sets: {}}", "combine: {sets: {linear: {}}}"))
    assert read(path, "a").publish.features == ["linear", "tfidf", "minilm"]


def test_a_colleague_pulls_own_data_and_nothing_runs(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    files(ours)
    begun(*NEW, "--images", "images", cwd=ours)
    author = ("-c", "user.name=t", "-c", "user.email=t@t")
    run("dvc", "remote", "add", "-q", "-d", "shared", str(tmp_path / "remote"), cwd=ours)
    run("dvc", "repro", "-q", "images@mine", cwd=ours)
    run("dvc", "push", "-q", cwd=ours)
    for words in (("add", "."), (*author, "commit", "-qm", "Run"), ("clone", "-q", ".", str(theirs))):
        run("git", *words, cwd=ours)
    run("dvc", "pull", "-d", "images@mine", cwd=theirs)
    assert "unning stage" not in run("dvc", "repro", "images@mine", cwd=theirs)
    with (ours / "ratings.csv").open("a") as file:  # twice, as DVC makes the file a link to its cache
        file.write("u1,i9,99\n")
    (ours / "images/1.png").write_bytes(b"no picture")  # which alone concerns `images`, as there are the same items
    lines = run("dvc", "repro", "images@mine", cwd=ours)
    assert "Running stage 'interactions@mine'" in lines
    assert "Running stage 'images@mine'" in lines
    assert (ours / "ratings.csv").stat().st_nlink == 1
