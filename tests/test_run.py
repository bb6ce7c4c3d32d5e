"""The harness: records, resumption, locks."""

import hashlib
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from pipeline import io, progress
from pipeline.errors import UserError
from pipeline.graph.params import Graph
from pipeline.io import write_bytes
from pipeline.items.params import Items
from pipeline.layout import Layout
from pipeline.run import Run, perform, running
from pipeline.seeds import seed_for
from pipeline.stage import Needs, Stage
from pipeline.train.params import Released
from stages import train
from stages.params import Params, load


@pytest.fixture
def params(tmp_path: Path) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    return load(path)


def test_a_run_leaves_a_record(tmp_path: Path, params: Params) -> None:
    with running("train", "shop", params, tmp_path) as run:
        run.rows_in, run.rows_out = 5, 3
        run.count("too rare", 2)
        run.note(items_per_second=7.5)
    record = json.loads((tmp_path / "train" / "shop" / "run.json").read_text())
    assert (record["rows_in"], record["rows_out"], record["drops"]) == (5, 3, {"too rare": 2})
    assert record["notes"] == {"items_per_second": 7.5}
    assert record["params"]["lr"] == 5e-4
    assert record["seconds"] >= 0
    assert record["peak_memory_mib"] > 1
    assert {"python", "torch", "pyarrow"} <= set(record["versions"])


def test_a_run_ends_with_one_line(tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    with running("train", "shop", params, tmp_path) as run:
        run.rows_in, run.rows_out = 5000, 3
        run.count("too_rare", 4997)
        run.warn("most are rare")
    shown = capsys.readouterr()
    assert re.fullmatch(r"train shop: 5,000 rows in, 3 out, 4,997 too rare; \d+\.\d s\n", shown.out)
    assert shown.err == "warning: train shop: most are rare\n"
    assert json.loads((tmp_path / "train/shop/run.json").read_text())["notes"] == {"warnings": ["most are rare"]}


def test_without_a_terminal_a_long_run_says_every_minute_how_far_it_is(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MINUTE", 0.2)
    begun = time.monotonic()
    with running("train", "shop", params, tmp_path) as run:
        time.sleep(1)
        for n, _ in enumerate(run.progress(range(40), total=40, unit="item", what="x")):
            time.sleep(0.05 if n < 30 else 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train shop: running for 00:00"
    assert re.fullmatch(r"train shop x: \d+/40 item, +[\d.?]+item/s, [\d:?]+ left", lines[-1])
    assert 3 <= len(lines) <= (time.monotonic() - begun) / 0.2
    done = [int(line.split(": ")[1].split("/")[0]) for line in lines if "/40" in line]
    assert done == sorted(done)
    assert done[-1] > done[0]


def test_a_line_has_the_figures_of_the_bar(params: Params, tmp_path: Path) -> None:
    run = Run("train", "shop", params, tmp_path)
    with run.progress(total=20, unit="epoch") as bar:
        for epoch in (4, 5):  # resumed at the fifth
            train.show_epoch(bar, {"epoch": epoch, "loss": 0.123456, "valid_recall@20": 0.2})
        line = progress.bar_line("", run.bars, 60)
    assert line.startswith("train shop: 6/20 epoch, ")
    assert line.endswith(" left, loss 0.1235, valid Recall@20 0.2000")


def test_a_short_run_says_nothing_before_its_end(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    with running("train", "shop", params, tmp_path) as run:
        list(run.progress(range(40), unit="item"))
    assert capsys.readouterr().err == ""


def test_a_failed_run_leaves_no_record(tmp_path: Path, params: Params) -> None:
    with running("train", "shop", params, tmp_path):
        pass
    with pytest.raises(RuntimeError), running("train", "shop", params, tmp_path):
        raise RuntimeError
    assert not (tmp_path / "train" / "shop" / "run.json").exists()


def test_resume_keeps_on_equal_grounds_and_empties_on_others(tmp_path: Path, params: Params) -> None:
    source = tmp_path / "input"
    source.write_text("1")
    with running("graph", "shop", params, tmp_path) as run:
        done = run.folder / "shard"
        run.resume(run.folder, [source], {"k": 10}, modules=["pipeline.io"])
        write_bytes(done, b"x")
        (run.folder / ".other.tmp").write_bytes(b"debris")
        run.resume(run.folder, [source], {"k": 10}, modules=["pipeline.io"])
        assert done.exists()
        assert not (run.folder / ".other.tmp").exists()
        run.resume(run.folder, [source], {"k": 11}, modules=["pipeline.io"])
        assert not done.exists()
        write_bytes(done, b"x")
        source.write_text("2")
        run.resume(run.folder, [source], {"k": 11}, modules=["pipeline.io"])
        assert not done.exists()


def nothing(_: Run) -> None:
    pass


def graph(main: Callable[[Run], None], needs: Callable[[Run], Needs] = lambda _: Needs([], [], [])) -> Stage:
    """Return a stage that does something else, and whose needs are always asked."""
    return Stage("graph", does="", writes="", params=Graph, main=main, needs=needs, looks=True)


def test_a_stage_that_has_ended_is_left_alone_until_something_that_it_depends_on_changes(
    tmp_path: Path, params: Params
) -> None:
    source, run = tmp_path / "input", Run("graph", "shop", params, tmp_path)
    source.write_text("1")
    facts, made = {"k": 10}, run.folder / "set" / "edges.parquet"

    def ran() -> bool:
        def main(_: Run) -> None:
            write_bytes(made, source.read_bytes())

        stage = graph(main, lambda _: Needs([source], [dict(facts)], ["pipeline.io"]))
        return perform(Run("graph", "shop", params, tmp_path), stage, nothing)

    assert ran()
    written = made.stat()
    assert not ran()
    assert made.stat() == written
    facts["k"] = 11
    assert ran()
    source.write_text("2")
    assert ran()
    made.write_text("x")  # altered by somebody else
    assert ran()
    assert made.read_text() == "2"
    (made.parent / "other").write_text("x")  # and added
    assert ran()
    run.layout.run_record("graph").unlink()
    assert ran()
    assert not ran()


def test_no_process_reads_a_file_for_its_hash_that_another_has_hashed(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, hashed = Layout(tmp_path, "shop"), list[str]()

    def digest(file: BinaryIO, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return hashlib.file_digest(file, name)

    def main(run: Run) -> None:
        run.resume(run.folder, [], modules=["pipeline.io"])
        write_bytes(run.folder / "made", b"7")

    def go(stage: Stage) -> tuple[bool, list[str]]:
        io.forget()  # as another process begins
        hashed.clear()
        return perform(Run(stage.name, "shop", params, tmp_path), stage, nothing), list(hashed)

    monkeypatch.setattr(io, "hashlib", SimpleNamespace(file_digest=digest, sha256=hashlib.sha256))
    first = Stage("items", "", "", Items, main, needs=lambda _: Needs([], [], ["pipeline.io"]))
    second = Stage("graph", "", "", Graph, main, (first,), lambda run: second.depends(run))
    assert go(first) == (True, [".made.tmp"])
    assert go(second) == (True, [".made.tmp"])
    assert go(first) == (False, [])
    assert go(second) == (False, [])
    careful = replace(second, rereads=True)
    layout.run_record("graph").unlink()
    assert go(careful) == (True, ["made", ".made.tmp"])
    assert go(careful) == (False, [])
    (layout.folder("items") / "made").write_bytes(b"8")
    with pytest.raises(UserError, match="made is not as it was made"):
        go(second)
    assert hashed == ["made"]


def test_a_part_that_was_altered_is_made_again(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stages keep the parts that are there; what a part holds is known by its hash alone."""
    parts = [tmp_path / "graph" / "shop" / name for name in ("a", "b")]
    making: list[str] = []

    def main(run: Run) -> None:
        run.resume(run.folder, [], modules=["pipeline.io"])
        for part in (part for part in parts if not part.exists()):
            making.append(part.name)
            write_bytes(part, b"as made")

    for altered in (False, True):
        if altered:
            parts[1].write_bytes(b"7.0")
        assert perform(Run("graph", "shop", params, tmp_path), graph(main), nothing)
    assert making == ["a", "b", "b"]
    assert parts[1].read_bytes() == b"as made"
    assert f"{parts[1]} was altered after it was made; it is made again" in capsys.readouterr().err


def test_a_stage_that_fails_has_not_ended(tmp_path: Path, params: Params) -> None:
    def fail(_: Run) -> None:
        raise RuntimeError

    for main, ends in ((nothing, True), (nothing, False)):
        assert perform(Run("graph", "shop", params, tmp_path), graph(main), nothing) is ends
    with pytest.raises(RuntimeError):
        perform(Run("graph", "shop", params, tmp_path), graph(fail, lambda _: Needs([], [1], [])), nothing)
    assert perform(Run("graph", "shop", params, tmp_path), graph(nothing), nothing)


def _hold(params: Params, root: Path, seconds: float) -> None:
    with running("graph", "shop", params, root) as run:
        write_bytes(run.folder / "started", b"")
        time.sleep(seconds)
        write_bytes(run.folder / "ended", b"")


def test_two_runs_of_one_stage_take_turns(tmp_path: Path, params: Params) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(params, tmp_path, 0.5))
    other.start()
    folder = tmp_path / "graph" / "shop"
    while not (folder / "started").exists():
        time.sleep(0.01)
    with running("graph", "shop", params, tmp_path):
        assert (folder / "ended").exists()
    other.join()


def test_seeds_come_from_names() -> None:
    assert seed_for("train", "baby", 0) == 2845690307855928780
    assert seed_for("a", "bc") != seed_for("ab", "c")


def test_the_seed_parameter_shifts_every_seed(tmp_path: Path, params: Params) -> None:
    other = params.having(Released.model_validate({"seed": 1}))
    with running("train", "shop", params, tmp_path) as run:
        first = run.seed("init")
    with running("train", "shop", other, tmp_path) as run:
        assert run.seed("init") != first


def test_a_run_within_another_has_seeds_of_its_stage_and_shows_its_progress_there(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    outer = Run("study", "shop", params, tmp_path)
    inner = outer.within("pretrain", params, outer.layout, "variants/x")
    assert inner.seed("targets") == Run("pretrain", "shop", params, tmp_path).seed("targets")
    assert inner.folder == outer.layout.folder("pretrain")
    list(inner.progress(range(2), total=2, what="teachers"))
    assert outer.bars == inner.bars != []
    inner.warn("slow")
    assert capsys.readouterr().err == "warning: study shop variants/x: slow\n"
