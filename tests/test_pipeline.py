"""The whole pipeline on a toy shop under DVC: runs, settles, survives kill -9 with the same release."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec
from PIL import Image

from pipeline.io import sha256
from pipeline.run import Run
from stages.order import STAGES
from stages.params import load

ROOT = Path(__file__).parent.parent

PARAMS = """
datasets: [shop]
sources: {shop: {kind: sample, users: 300, items: 100}}
pretrain: {vocab: 300, codes: 16, steps: 6, batch_size: 8, threads: 1, distill_from: [tfidf]}
encode: {encoders: [beit3, beit3-image-masked, tfidf]}
train: {batch_size: 512, epochs: 2}
benchmark: {models: [bpr, alignrec], seeds: 2, features: [beit3, random], workers: 1}
study: {mask: {seeds: 1}}
report: {gallery_items: 4}
semantic_ids: {features: [beit3], methods: [residual-kmeans, rqvae], codes: 8, settings: {rqvae: {epochs: 2}}}
"""


def project(folder: Path) -> Path:
    """Lay out a fresh clone's pipeline in `folder` with toy parameters."""
    for name in ("pipeline", "stages", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "outputs").mkdir()
    shutil.copy(ROOT / "outputs/.gitignore", folder / "outputs")
    subprocess.run(["git", "init", "-q", folder], check=True)
    run("dvc", "init", "-q", cwd=folder)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    return folder


def environment() -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "."}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


IN_ONE_PROCESS = """
import sys
from stages.cli import app
for stage in sys.argv[1:]:
    if app([stage, "shop"], standalone_mode=False):
        sys.exit(1)
"""


def reran(folder: Path) -> set[str]:
    """Run all stages as DVC runs each of them; return those that did not end with nothing to do."""
    said = run("python", "-c", IN_ONE_PROCESS, *STAGES, cwd=folder).splitlines()
    return {s for s in STAGES if not any(line.startswith(f"{s} shop: nothing to do") for line in said)}


def copied(undisturbed: Path, to: Path) -> Path:
    return Path(shutil.copytree(undisturbed, to / "copy", symlinks=True))


def release(folder: Path) -> dict[str, str]:
    """Return relative path -> sha256 of every file of the release."""
    base = folder / "outputs/publish/shop/release"
    return {str(p.relative_to(base)): sha256(p) for p in sorted(base.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("undisturbed"))
    run("dvc", "repro", cwd=folder)
    return folder


def test_every_stage_ran_and_left_its_record(undisturbed: Path) -> None:
    assert [s for s in STAGES if not (undisturbed / f"outputs/{s}/shop/run.json").exists()] == []
    assert "features/beit3/features-00000.parquet" in release(undisturbed)


STAGES_THAT_ROUND = list(STAGES).index("pretrain")
"""from here on a processor's rounding is in a stage's files"""


OWN = """
datasets: [shop]
sources: {shop: {kind: tabular, interactions: mine/bought.csv, items: mine/items.csv}}
benchmark: {ks: [1]}
"""


def test_edited_files_and_images_of_ones_own_rerun_what_reads_them(tmp_path: Path) -> None:
    folder, stages = tmp_path, ("download", "interactions", "items", "images")

    def ran() -> set[str]:
        return {s for s in stages if "nothing to do" not in alignrec(s, "shop", cwd=folder).stdout}

    (folder / "params.yaml").write_text(OWN)
    (folder / "mine/images").mkdir(parents=True)
    (folder / "mine/bought.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(6) for i in range(6)))
    (folder / "mine/items.csv").write_text(
        "item,title,image_urls\n" + "".join(f"{i},t{i},images/{i}.png\n" for i in range(6))
    )
    for i in range(5):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"mine/images/{i}.png")
    assert ran() == set(stages)
    Image.new("RGB", (20, 20), "blue").save(folder / "mine/images/5.png")
    assert ran() == {"images"}
    edit(folder, "mine/items.csv", "t0", "another title")
    assert "download" in ran()


def test_the_release_verifies(undisturbed: Path) -> None:
    assert alignrec("verify", "outputs/publish/shop/release", cwd=undisturbed).exit_code == 0


def test_a_training_parameter_concerns_what_trains_and_no_other_stage(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(undisturbed)
    (tmp_path / "params.yaml").write_text(PARAMS.replace("512, epochs: 2", "512, epochs: 3"))

    def facts(path: Path) -> dict[str, list[Any]]:
        params = load(path, "shop")
        return {s: stage.asks(Run(s, "shop", params, Path("outputs"))).facts for s, stage in STAGES.items()}

    before, after = facts(Path("params.yaml")), facts(tmp_path / "params.yaml")
    assert {s for s in STAGES if before[s] != after[s]} == {"train", "benchmark", "study"}


def rolled(path: Path, column: str) -> None:
    """Write a Parquet file with the values of one column moved by a row, all else as it was."""
    table = pq.read_table(path)
    values = table[column].combine_chunks()
    moved = pa.concat_arrays([values.slice(1), values.slice(0, 1)])
    changed = table.set_column(table.schema.get_field_index(column), table.schema.field(column), moved)
    pq.write_table(changed, path, compression="zstd")


def flipped(path: Path) -> None:
    """Flip one bit, with size and time of change as they were."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


ALTERED: list[tuple[str, Callable[[Path], None]]] = [
    ("encode/shop/beit3/features-00000.parquet", lambda path: rolled(path, "vector")),
    ("encode/shop/beit3/features-00000.parquet", flipped),
    ("items/shop/items.parquet", lambda path: rolled(path, "title")),
    ("items/shop/items.parquet", lambda path: rolled(path, "text")),
    ("train/shop/item_embeddings.parquet", lambda path: rolled(path, "vector")),
    ("train/shop/user_embeddings.parquet", flipped),
    ("benchmark/shop/results.parquet", lambda path: rolled(path, "value")),
    ("probe/shop/probes.json", lambda path: path.write_text(path.read_text().replace(": 0.", ": 0.9", 1))),
    ("graph/shop/beit3/edges.parquet", lambda path: rolled(path, "neighbour_id")),
    ("pretrain/shop/encoder.safetensors", flipped),
    ("pretrain/shop/history.json", Path.unlink),
    ("images/shop/images-00000.parquet", flipped),
    ("interactions/shop/interactions.parquet", lambda path: rolled(path, "item_id")),
    ("study/shop/mask.parquet", flipped),
    ("encode/shop/theirs/features-00000.parquet", lambda path: path.parent.mkdir() or path.write_bytes(b"x")),
]


@pytest.fixture(scope="module")
def alterable(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(undisturbed, tmp_path_factory.mktemp("altered"))


@pytest.mark.parametrize("number", range(len(ALTERED)))
def test_nothing_that_no_stage_wrote_is_released(undisturbed: Path, alterable: Path, number: int) -> None:
    name, alter = ALTERED[number]
    path, made = (folder / "outputs" / name for folder in (alterable, undisturbed))
    alter(path)
    done = alignrec("publish", "shop", cwd=alterable)
    there = path.exists()
    if made.exists():
        shutil.copy2(made, path)
    else:
        shutil.rmtree(path.parent)
    assert done.exit_code == 1
    what = "is not as it was made" if there else "is gone"
    stage = name.partition("/")[0]
    assert f"outputs/{name} {what}" in done.stderr
    assert f"run `alignrec {stage} shop`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_bit_rot_is_mended_by_the_next_repro(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    before = release(folder)
    for name in ("encode/shop/beit3/features-00000.parquet", "train/shop/item_embeddings.parquet"):
        flipped(folder / "outputs" / name)
    assert {"encode", "train"} <= reran(folder)
    assert release(folder) == before


@pytest.mark.parametrize("broken", [False, True], ids=["gone", "broken"])
def test_without_stamps_files_are_held_to_dvc_lock(undisturbed: Path, tmp_path: Path, broken: bool) -> None:
    """So it is after `dvc checkout` in another clone: a rotten cache brings files that nobody made."""
    folder = copied(undisturbed, tmp_path)
    for stamp in folder.glob("outputs/*/shop/.stamp"):
        if broken:
            stamp.write_text("{")
        else:
            stamp.unlink()
    shutil.rmtree(folder / "outputs/publish/shop")
    assert alignrec("publish", "shop", cwd=folder).exit_code == 0
    assert release(folder) == release(undisturbed)
    flipped(folder / "outputs/graph/shop/beit3/edges.parquet")
    (folder / "outputs/publish/shop/.stamp").unlink(missing_ok=True)
    done = alignrec("publish", "shop", cwd=folder)
    assert done.exit_code == 1
    assert "outputs/graph/shop: its files are not those of dvc.lock" in done.stderr


def edit(folder: Path, path: str, before: str, after: str) -> None:
    text = (folder / path).read_text()
    assert before in text
    (folder / path).write_text(text.replace(before, after, 1))


def test_an_edit_reruns_what_it_can_change_and_no_more(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    before = release(folder)
    for package in ("pipeline", "stages", "schemas"):
        for path in (folder / package).rglob("*.py"):  # every module's docstring, and a comment
            path.write_text(path.read_text().replace('"""', '"""Edited: ', 1) + "# edited\n")
    edit(folder, "pipeline/http/retries.py", "\n\n\n", "\n\nEDITED = 1\n\n\n")
    assert reran(folder) == set()

    edit(folder, "pipeline/train/loop.py", "\n\n\n", "\n\nEDITED = 1\n\n\n")
    assert reran(folder) == {"train", "benchmark", "study"}  # report and publish follow where these change a figure

    column = 'field("image_url",'
    edit(folder, "schemas/release.py", column, f'field("kind", pa.string(), "of an item"),\n        {column}')
    filled = '"image_url": pa.array('
    edit(folder, "pipeline/release/build.py", filled, f'"kind": pa.array([""] * n, pa.string()),\n        {filled}')
    assert reran(folder) == {"publish"}
    assert {name for name, actual in release(folder).items() if before[name] != actual} >= {"items.parquet"}


def test_git_sees_the_lock_and_the_figures_of_a_run_and_no_other_output(undisturbed: Path) -> None:
    seen = run("git", "status", "--porcelain", "--untracked-files=all", "dvc.lock", "outputs", cwd=undisturbed)
    parts = ("metrics", "pretrain", "train", "mask", "curves", "heatmaps")
    figures = {f"outputs/figures/shop/{part}.json" for part in parts}
    assert {line[3:] for line in seen.splitlines()} == {"dvc.lock", "outputs/.gitignore"} | figures


def test_the_lock_and_figures_of_another_processor_make_nothing_anew(undisturbed: Path, tmp_path: Path) -> None:
    """What `git checkout dvc.lock outputs/figures` brings back where the committed run rounded otherwise."""
    folder = copied(undisturbed, tmp_path)
    before = (folder / "dvc.lock").read_text()
    other = yaml.safe_load(before)
    for stage in list(STAGES)[STAGES_THAT_ROUND:]:
        for out in other["stages"][f"{stage}@shop"]["outs"]:
            out["md5"] = "0" * 32 + ".dir"
    (folder / "dvc.lock").write_text(yaml.safe_dump(other))
    figures = folder / "outputs/figures/shop"
    kept = {path: path.read_bytes() for path in figures.iterdir()}
    (figures / "metrics.json").write_text('{"recall@20": 0.5}\n')
    said = run("dvc", "repro", cwd=folder)
    assert [s for s in STAGES if f"\n{s} shop: nothing to do" in said] == list(STAGES)
    assert yaml.safe_load((folder / "dvc.lock").read_text()) == yaml.safe_load(before)
    assert {path: path.read_bytes() for path in figures.iterdir()} == kept


def test_the_report_has_the_figures_of_dvcs_metrics_and_plots(undisturbed: Path) -> None:
    text = (undisturbed / "outputs/report/shop/report.md").read_text()
    page = (undisturbed / "outputs/report/shop/index.html").read_text()
    shown = json.loads(run("dvc", "metrics", "show", "--json", cwd=undisturbed))[""]["data"]
    ((_, metrics),) = shown.items()
    figures = metrics["data"]
    assert 8 <= len(figures) <= 12
    (row,) = [line for line in text.splitlines() if line.startswith("| staged | alignrec | beit3 |")]
    assert f"{figures['recall@20']:.4f} ± {figures['sd']:.4f}" in row
    assert f"{figures['ndcg@20']:.4f}" in row
    assert f"{figures['zero_shot']:.4f}" in next(line for line in text.splitlines() if line.startswith("| beit3 |"))
    opened = json.loads(run("dvc", "plots", "show", "--json", cwd=undisturbed))
    assert "errors" not in opened  # without a sweep too
    plots = opened["data"]
    points = [p for plot in plots.values() for part in plot for p in part["content"]["data"]["values"]]
    points = [p for p in points if p.keys() & {"epoch", "step"}]
    drawn = [(p.get("field", "valid_recall@20"), p) for p in points]  # one line is not named
    last = {name: p[name] for name, p in drawn}  # the last epoch or step comes last
    assert {"mim_accuracy", "mlm_accuracy", "valid_recall@20"} <= set(last)
    assert [name for name, value in last.items() if f"<b>{value:.4g}</b>" not in page] == []


def test_the_summary_shows_results_and_paths(undisturbed: Path) -> None:
    shown = alignrec("summary", cwd=undisturbed).stdout
    assert "alignrec" in shown
    assert "report: outputs/report/shop/index.html" in shown
    assert "release: outputs/publish/shop/release" in shown


def test_killed_within_a_stage_the_next_repro_gives_the_same_release(undisturbed: Path, tmp_path: Path) -> None:
    """Within pre-training, here; `make kill` has the other stages."""
    folder = copied(undisturbed, tmp_path)
    made = folder / "outputs/pretrain/shop"
    shutil.rmtree(made)
    with (folder / "repro.log").open("w") as log:
        command = ["dvc", "repro", "--single-item", "pretrain@shop"]
        repro = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
        while not made.exists():
            assert repro.poll() is None, (folder / "repro.log").read_text()[-4000:]
            time.sleep(0.05)
        os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
    run("alignrec", "repair", cwd=folder)
    run("dvc", "repro", "--single-item", "pretrain@shop", cwd=folder)
    assert reran(folder) == set()  # as its files are what they were
    assert release(folder) == release(undisturbed)
