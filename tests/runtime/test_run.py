"""The harness: records, resumption, locks."""

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from filelock import FileLock
from processes import started

from alignrec.commands.params import Params, load
from alignrec.commands.terminal import describe_error
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io import files_below, write_bytes, write_table
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import progress
from alignrec.pipeline.runtime.run import Run, running
from alignrec.pipeline.runtime.stage import Stage, perform


@pytest.fixture
def params(tmp_path: Path) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    return load(path)


def test_a_run_leaves_a_record_and_a_line(tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    with running("train", "shop", params, tmp_path) as run:
        run.rows_in, run.rows_out = 5000, 3
        run.count("too_rare", 4997)
        run.note(mean=7.5)
        run.measure(rate=7)
        list(run.progress(range(40), unit="item"))  # silent, as the run is short
        run.warn("most are rare")
    shown = capsys.readouterr()
    assert re.fullmatch(r"train shop: 5,000 rows in, 3 out, 4,997 too rare; \d+\.\d s\n", shown.out)
    assert shown.err == "warning: train shop: most are rare\n"
    record, cost = (
        json.loads((tmp_path / f).read_text()) for f in ("train/shop/run.json", ".work/train/shop/cost.json")
    )
    assert (record["rows_in"], record["rows_out"], record["drops"]) == (5000, 3, {"too_rare": 4997})
    assert record["notes"] == {"mean": 7.5, "warnings": ["most are rare"]}
    assert record["params"]["lr"] == 5e-4
    assert (cost["seconds"] >= 0, cost["peak_memory_mib"] > 1, cost["measured"]) == (True, True, {"rate": 7})
    assert cost["own_memory_mib"] is None or 1 < cost["own_memory_mib"] < cost["peak_memory_mib"]
    assert {"python", "torch", "pyarrow"} <= set(record["versions"])


@pytest.fixture
def next_beat(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that waits until a line of progress is made after its call."""
    begun, line = threading.Event(), progress.bar_line

    def noticed(*given: Any) -> str:
        begun.set()
        return line(*given)

    def wait() -> None:
        begun.clear()
        assert begun.wait(60)

    monkeypatch.setattr(progress, "MINUTE", 0.01)
    monkeypatch.setattr(progress, "bar_line", noticed)
    return wait


def test_without_a_terminal_a_long_run_says_every_minute_what_it_does(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str], next_beat: Callable[[], None]
) -> None:
    with running("train", "shop", params, tmp_path) as run:
        next_beat()
        for _ in run.progress(range(2), total=2, unit="item", what="x"):
            next_beat()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train shop: running for 00:00"
    assert any(re.fullmatch(r"train shop x: \d/2 item", line) for line in lines)


def test_a_line_says_how_far_a_run_is_and_after_ten_seconds_its_rate() -> None:
    now, bar = [0.0], progress.Silent(desc="train shop x", total=40, unit="item", file=StringIO())
    bar._time = lambda: now[0]  # noqa: SLF001

    def line(seconds: float, items: int) -> str:
        now[0] = seconds
        bar.update(items)
        return progress.bar_line("train shop", [bar], seconds)

    assert line(60, 1) == "train shop x: 1/40 item"
    assert line(70, 9) == "train shop x: 10/40 item"  # an estimate is not worth one yet
    assert line(79, 10) == "train shop x: 20/40 item,  1.00item/s, 00:20 left"
    assert line(90, 20) == "train shop: running for 01:30"


def test_resume_keeps_on_equal_grounds_and_empties_on_others(tmp_path: Path, params: Params) -> None:
    source = tmp_path / "input"
    with running("graph", "shop", params, tmp_path) as run:
        done, debris = run.folder / "shard", run.folder / ".other.tmp"
        for text, k, kept in (("1", 10, False), ("1", 10, True), ("1", 11, False), ("2", 11, False)):
            source.write_text(text)
            run.resume(run.folder, [source], {"k": k}, modules=["alignrec.pipeline.io"])
            assert (done.exists(), debris.exists()) == (kept, False)
            write_bytes(done, b"x")
            debris.write_bytes(b"x")


def nothing(_: Run) -> None:
    pass


def graph(main: Callable[[Run], None], *reads: Stage, resumes: bool = False) -> Stage:
    return Stage("graph", does="", writes="", params=Graph, main=main, reads=reads, resumes=resumes)


def test_what_is_finished_keeps_its_record_until_a_file_or_its_grounds_change(tmp_path: Path, params: Params) -> None:
    out, work = tmp_path / "graph/shop", tmp_path / ".work/graph/shop"
    facts, times = {"k": 10}, list[int]()

    def main(run: Run) -> None:
        run.resume(run.folder, [], dict(facts), modules=["alignrec.pipeline.io"])
        if run.finished():
            return
        times.append(1)
        write_bytes(run.folder / "made", b"x")

    def again() -> tuple[int, list[str]]:
        perform(Run("graph", "shop", params, tmp_path), graph(main, resumes=True), nothing)
        return len(times), sorted(path.name for path in out.iterdir())

    assert again() == (1, ["made", "run.json"])
    record = (out / "run.json").read_bytes()
    assert again()[0] == 1
    shutil.rmtree(out)  # as DVC does
    assert again() == (1, ["made", "run.json"])
    (out / "other").write_text("x")
    assert again() == (1, ["made", "run.json"])
    for alter in (lambda: write_bytes(work / "made", b"y"), lambda: edited(work / "run.json")):
        alter()
        before = len(times)
        assert again()[0] == before + 1
        assert (out / "run.json").read_bytes() == record
    facts["k"] = 11
    assert again()[0] == 4
    write_bytes(work / "other", b"x")
    assert again() == (5, ["made", "other", "run.json"])


def test_an_out_appears_whole_and_what_serves_resuming_stays_behind(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, text = tmp_path / "graph/shop", "first"

    def main(run: Run) -> None:
        for name in ("a", "of/b", ".checkpoint", ".scratch/c"):
            write_bytes(run.folder / name, text.encode())
        assert not out.exists() or (out / "of/b").read_text() == "first"
        if text == "killed":
            raise KeyboardInterrupt

    def again() -> None:
        perform(Run("graph", "shop", params, tmp_path), graph(main), nothing)

    again()
    assert files_below(tmp_path / "graph") == [out / "a", out / "of/b"]
    assert (out / "a").samefile(tmp_path / ".work/graph/shop/a")
    text = "killed"
    with pytest.raises(KeyboardInterrupt):
        again()
    assert (out / "a").read_text() == "first"
    text = "second"
    monkeypatch.setattr("os.link", Mock(side_effect=OSError(errno.EXDEV, "another disk")))
    again()
    assert [(out / name).read_text() for name in ("a", "of/b")] == ["second", "second"]
    assert sorted(path.name for path in (tmp_path / ".work/graph").iterdir()) == [".shop.lock", "shop"]


def test_each_item_of_a_matrix_has_its_folder(tmp_path: Path, params: Params) -> None:
    encode = Stage("graph", "", "", Graph, lambda run: write_bytes(run.folder / "made", run.item.encode()), per="set")
    for item in ("a", "b"):
        perform(Run("graph", "shop", params, tmp_path, item), encode, nothing)
        assert (tmp_path / "graph/shop" / item / "made").read_text() == item
    reader = Stage("items", "", "", Items, nothing, reads=(encode,))
    perform(Run("items", "shop", params, tmp_path), reader, nothing)
    (tmp_path / "graph/shop/b/made").unlink()
    with pytest.raises(UserError, match=r"graph/shop/b/made is gone.* run `alignrec graph shop b`"):
        perform(Run("items", "shop", params, tmp_path), reader, nothing)


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"rows_in": 0', '"rows_in": 9'))


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda folder: (folder / "made").write_bytes(b"8"), "/made is not"),
        (lambda folder: (folder / "made").unlink(), "/made is gone"),
        (lambda folder: (folder / "more").write_bytes(b"8"), "/more is of"),
        (lambda folder: edited(folder / "run.json"), "run.json was edited"),
        (lambda folder: (folder / "run.json").unlink(), "not ended"),
    ],
)
def test_what_no_stage_wrote_is_refused(
    tmp_path: Path, params: Params, alter: Callable[[Path], object], said: str
) -> None:
    first = Stage("items", "", "", Items, lambda run: write_bytes(run.folder / "made", b"7"))
    perform(Run("items", "shop", params, tmp_path), first, nothing)
    perform(Run("graph", "shop", params, tmp_path), graph(nothing, first), nothing)
    alter(tmp_path / "items/shop")
    with pytest.raises(UserError, match=said) as error:
        perform(Run("graph", "shop", params, tmp_path), graph(nothing, first), nothing)
    assert ("delete it" if "more" in said else "run `alignrec items shop`") in str(error.value)
    (tmp_path / "items/shop/more").unlink(missing_ok=True)
    perform(Run("items", "shop", params, tmp_path), first, nothing)
    perform(Run("graph", "shop", params, tmp_path), graph(nothing, first), nothing)


def test_only_an_altered_part_is_made_again(tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    parts, making = [tmp_path / ".work/graph/shop" / name for name in ("a", "b")], list[str]()

    def main(run: Run) -> None:
        run.resume(run.folder, [], modules=["alignrec.pipeline.io"])
        for part in (part for part in parts if not part.exists()):
            making.append(part.name)
            write_bytes(part, b"as made")

    perform(Run("graph", "shop", params, tmp_path), graph(main, resumes=True), nothing)
    parts[1].write_bytes(b"7.0")
    perform(Run("graph", "shop", params, tmp_path), graph(main, resumes=True), nothing)
    assert (making, parts[1].read_bytes()) == (["a", "b", "b"], b"as made")
    assert f"{parts[1]} was altered" in capsys.readouterr().err


def test_a_file_that_changes_before_it_is_recorded_is_made_again(tmp_path: Path, params: Params) -> None:
    made = tmp_path / ".work/graph/shop/made"

    def main(run: Run) -> None:
        run.resume(run.folder, [], modules=["alignrec.pipeline.io"])
        if not made.exists():
            write_bytes(made, b"7")

    def altered(run: Run) -> None:
        main(run)
        made.write_bytes(b"8.0")

    with pytest.raises(UserError, match="graph/shop/made changed after it was written; run again"):
        perform(Run("graph", "shop", params, tmp_path), graph(altered, resumes=True), nothing)
    perform(Run("graph", "shop", params, tmp_path), graph(main, resumes=True), nothing)
    assert (tmp_path / "graph/shop/made").read_bytes() == b"7"


def _hold(params: Params, root: Path) -> None:
    with running("graph", "shop", params, root) as run:
        write_bytes(run.folder / "started", b"")
        time.sleep(0.5)
        write_bytes(run.folder / "ended", b"")


def test_two_runs_of_one_stage_take_turns(tmp_path: Path, params: Params) -> None:
    other = started(_hold, params, tmp_path)
    folder = tmp_path / ".work/graph/shop"
    while not (folder / "started").exists():
        assert other.poll() in (None, 0)
        time.sleep(0.01)
    with running("graph", "shop", params, tmp_path):
        assert (folder / "ended").exists()
    assert other.wait() == 0


@pytest.mark.parametrize("place", [".work", ".work/graph"])
@pytest.mark.parametrize("mode", [0o644, 0o555], ids=["a file", "read-only"])
def test_a_read_only_work_folder_is_one_line(tmp_path: Path, params: Params, place: str, mode: int) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if mode == 0o644:
        path.touch()
    else:
        path.mkdir(mode)
        if os.access(path, os.W_OK):
            pytest.skip("no permission binds this user")
    with pytest.raises(UserError, match="give this user access or delete it: unfinished work is made again") as e:
        perform(Run("graph", "shop", params, tmp_path), graph(nothing), nothing)
    assert str(path) in str(e.value)


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"shop\S*: Permission denied; give this user access"):
        perform(Run("graph", "shop", params, tmp_path), graph(nothing), nothing)


def save_table(path: Path) -> None:
    write_table(pa.table({"item_id": pa.array([0], pa.int32())}), path, pa.schema([("item_id", pa.int32())]))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize("write", [lambda path: write_bytes(path, b"7"), save_table], ids=["bytes", "table"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, params: Params, write: Callable[[Path], None]
) -> None:
    full, null = True, os.open(os.devnull, os.O_WRONLY)

    def opened(path: Path, *_: int) -> int:
        path.symlink_to("/dev/full")
        return null

    def main(run: Run) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if full:
                patch.setattr(os, "open", opened)
            write(run.folder / "made")

    with pytest.raises(OSError) as e:  # noqa: PT011
        perform(Run("graph", "shop", params, tmp_path), graph(main), nothing)
    made = tmp_path / ".work/graph/shop/made"
    assert describe_error(e.value) == f"{made}: the disk is full; make space and run the same command again"
    assert list(made.parent.iterdir()) == []
    full = False
    perform(Run("graph", "shop", params, tmp_path), graph(main), nothing)
    assert (tmp_path / "graph/shop/made").stat().st_size > 0


def test_a_slow_download_prints_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], next_beat: Callable[[], None]
) -> None:
    with progress.bytes_bar("fetch") as received:
        received(3 << 20, 40 << 20)
        next_beat()
    assert capsys.readouterr().err.splitlines()[-1] == "fetch: 3.15M/41.9M B"
