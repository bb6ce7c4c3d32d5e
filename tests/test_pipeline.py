"""The whole pipeline on a toy shop under DVC: it runs, is then up to date, and survives kill -9 unchanged."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import toyproject
from commands import alignrec
from shop import toy
from toyproject import environment, project, run

from alignrec.commands.params import load
from alignrec.pipeline.report.figures import name_network, sample_network
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import perform
from alignrec.stages.order import STAGES


def copied(undisturbed: Path, to: Path) -> Path:
    return Path(shutil.copytree(undisturbed, to / "copy", symlinks=True))


def release(folder: Path) -> dict[str, bytes]:
    return toy.contents(folder / "outputs/publish/shop/release")


UP_TO_DATE = "Data and pipelines are up to date."
pytestmark = pytest.mark.usefixtures("shims")


@pytest.fixture(scope="module")
def undisturbed(shims: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("undisturbed"))
    run("dvc", "repro", cwd=folder)
    return folder


def test_every_stage_ran_the_release_verifies_and_nothing_is_due(undisturbed: Path) -> None:
    assert [s for s in STAGES if not [*(undisturbed / f"outputs/{s}/shop").rglob("run.json")]] == []
    assert "features/beit3/features-00000.parquet" in release(undisturbed)
    assert alignrec("verify", "outputs/publish/shop/release", cwd=undisturbed).exit_code == 0
    shown = alignrec("summary", cwd=undisturbed).stdout
    assert "report: outputs/report/shop/index.html\nrelease: outputs/publish/shop/release\n" in shown
    assert run("dvc", "status", cwd=undisturbed).strip() == UP_TO_DATE


def flipped(path: Path) -> None:
    """Flip one bit, keeping size and mtime."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(folder: Path, path: str, before: str, after: str) -> None:
    text = (folder / path).read_text()
    assert before in text
    (folder / path).write_text(text.replace(before, after, 1))


def ran(said: str) -> list[str]:
    return [line.split()[2] for line in said.splitlines() if line.startswith("> alignrec ")]


def due(folder: Path) -> list[str]:
    return ran(run("dvc", "repro", "--dry", cwd=folder))


def test_code_and_parameters_are_dvcs_to_compare(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    toyproject.copied(folder)
    for path in ("pipeline/runtime/run.py", "pipeline/io/files.py", "pipeline/linalg/neighbours.py"):
        edit(folder, path, "\n\n\n", "\n\n\n# a comment\n")
    edit(folder, "pipeline/features/semantic_ids.py", "\n\n\n", "\n\n\nNEW = 1\n\n\n")
    run("alignrec", "new", cwd=folder)
    assert due(folder) == ["semantic_ids"]
    shutil.copy(undisturbed / "code.json", folder)
    edit(folder, "params.yaml", "epochs: 2}\nbenchmark", "epochs: 3}\nbenchmark")
    assert due(folder)[0] == "train"


def test_an_earlier_setting_runs_nothing(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    before = toy.contents(folder / "outputs/report")
    for codes, stages in ((4, ["semantic_ids", "report"]), (8, [])):
        path = folder / "params.yaml"
        path.write_text(re.sub(r"codes: \d}", f"codes: {codes}}}", path.read_text()))
        assert ran(run("dvc", "repro", "report@shop", cwd=folder)) == stages
        assert (toy.contents(folder / "outputs/report") == before) == (codes == 8)


def test_a_pushed_run_is_pulled_elsewhere_and_nothing_runs(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    run("dvc", "remote", "add", "-q", "-d", "local", str(tmp_path / "remote"), cwd=folder)
    (folder / ".gitignore").write_text("__pycache__/\n")
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["add", "."], [*author, "commit", "-q", "-m", "A run"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    run("dvc", "push", "-q", cwd=folder)
    clone = tmp_path / "another/path"
    subprocess.run(["git", "clone", "-q", folder, clone], check=True)
    run("dvc", "pull", "-q", cwd=clone)
    assert ran(run("dvc", "repro", cwd=clone)) == []
    assert release(clone) == release(undisturbed)
    run("dvc", "repro", "-q", "--force", "--single-item", "train@shop", cwd=clone)  # which makes what was pulled
    assert run("dvc", "status", cwd=clone).strip() == UP_TO_DATE
    flipped(clone / "outputs/graph/shop/beit3/edges.parquet")
    done = alignrec("publish", "shop", cwd=clone)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


def test_the_report_has_the_figures_of_dvcs_metrics_and_plots(undisturbed: Path) -> None:
    text = (undisturbed / "outputs/report/shop/report.md").read_text()
    shown = json.loads(run("dvc", "metrics", "show", "--json", cwd=undisturbed))[""]["data"]
    ((_, metrics),) = shown.items()
    figures = metrics["data"]
    assert 8 <= len(figures) <= 13
    assert figures["network"] == name_network(sample_network(Layout(undisturbed / "outputs", "shop")))
    (row,) = [line for line in text.splitlines() if line.startswith("| staged | alignrec | beit3 |")]
    assert f"{figures['recall@20']:.4f} ± {figures['sd']:.4f}" in row
    assert f"{figures['ndcg@20']:.4f}" in row
    assert f"{figures['zero_shot']:.4f}" in next(line for line in text.splitlines() if line.startswith("| beit3 |"))
    opened = json.loads(run("dvc", "plots", "show", "--json", cwd=undisturbed))
    assert "errors" not in opened  # without a sweep too
    points = [p for plot in opened["data"].values() for part in plot for p in part["content"]["data"]["values"]]
    drawn = {p.get("field", "valid_recall@20") for p in points if p.keys() & {"epoch", "step"}}  # one line is not named
    assert {"mim_accuracy", "mlm_accuracy", "valid_recall@20"} <= drawn


def test_killed_within_a_stage_the_next_repro_gives_the_same_release(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    made = folder / "outputs/.work/benchmark/shop"
    shutil.rmtree(made)
    shutil.rmtree(folder / "outputs/benchmark/shop")
    with (folder / "repro.log").open("w") as log:
        command = ["dvc", "repro", "--force", "--single-item", "benchmark@shop"]  # else DVC's cache has it
        repro = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
        while not made.exists():
            assert repro.poll() is None, (folder / "repro.log").read_text()[-4000:]
            time.sleep(0.05)
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
    run("dvc", "repro", "--force", "--single-item", "benchmark@shop", cwd=folder)
    assert due(folder) == []  # as its files are what they were
    assert release(folder) == release(undisturbed)


@pytest.fixture(scope="module")
def repeatable(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(undisturbed, tmp_path_factory.mktemp("repeated"))


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", STAGES)
def test_a_record_is_the_same_fresh_killed_and_resumed_and_run_again(name: str, repeatable: Path) -> None:
    stage, params = STAGES[name], load(repeatable / "params.yaml", "shop")
    item = getattr(params.section(name), f"{stage.per}s")[0] if stage.per else ""

    def ended(last: int = 1 << 30) -> tuple[bytes, int]:
        run = Run(name, "shop", params, repeatable / "outputs", item)
        with toy.stopped(last) as replaced:
            perform(run, stage, lambda _: None)
        return (run.out / "run.json").read_bytes(), len(replaced)

    work = Layout(repeatable / "outputs", "shop").work(name, item)
    shutil.rmtree(work)
    fresh, files = ended()
    shutil.rmtree(work)
    with pytest.raises(KeyboardInterrupt):
        ended(max(files // 2, 1))
    for _ in range(2):
        assert ended()[0] == fresh
