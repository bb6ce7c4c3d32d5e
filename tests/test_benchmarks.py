"""Ways take turns, and ratios of their seconds are taken within a round; nothing depends on the machine's speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import Measurement, __main__, _baby, _turns, accuracy, encode
from benchmarks._turns import Turn, Way
from pipeline import waiting
from pipeline.beit3.config import SIZES
from pipeline.interactions.split import Pairs, Split

QUICK = {"ours": [1.0, 1.0, 2.0], "plain": [4.0, 5.0, 6.0]}


def way(wall: list[float], cpu: list[float] | None = None, work: float = 1) -> Way[None]:
    return Way([Turn(w, c, None) for w, c in zip(wall, cpu or wall, strict=True)], work)


def test_every_way_has_a_turn_per_round_and_each_round_begins_with_another() -> None:
    order: list[str] = []
    turns = {name: lambda name=name: Turn(1.0, 1.0, order.append(name) or len(order)) for name in "abc"}
    ways = _turns.take(turns, rounds=4, work={"a": 1, "b": 2, "c": 3})
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert ([turn.result for turn in ways["b"].turns], ways["c"].work) == ([2, 4, 9, 11], 3)
    order.clear()
    warm = _turns.take({name: turns[name] for name in "ab"}, rounds=1, warm_up=True)
    assert (order, len(warm["a"].turns)) == ([*"abab"], 1)


def test_waiting_costs_wall_seconds_and_work_of_children_costs_cpu_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = _turns.timed(time.sleep, 0.2)
    assert (waited.wall >= 0.2, waited.cpu < 0.1) == (True, True)
    code = "import time\nwhile time.process_time() < 0.2: pass"
    assert _turns.timed(subprocess.run, [sys.executable, "-c", code]).cpu >= 0.2
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with _turns.process({"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": ""}) as one, _turns.process() as other:
        pids = {one(os.getpid), other(os.getpid), os.getpid(), _turns.alone(os.getpid)}
        assert (one(os.getenv, "GOMP_SPINCOUNT"), one(os.getenv, "OMP_WAIT_POLICY")) == ("7", None)
        assert other(os.getenv, "OMP_WAIT_POLICY") == "ACTIVE"
    assert len(pids) == 4


def test_ratios_table_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"plain": way(QUICK["plain"]), "ours": way(QUICK["ours"], [1.0, 1.0, 1.0], work=2)}
    m = Measurement(ways, "ours", "plain", "items/s", True, 4.0, "a limit", "some work")
    assert m.ratio("ours") == (8.0, 6.0, 10.0)  # 2 * 4/1, 2 * 5/1, 2 * 6/2; medians would give 10
    assert (m.ratio("ours", "cpu"), m.figure("ours"), m.share_of_limit) == ((10.0, 8.0, 12.0), 2.0, 0.5)
    lines = benchmarks.lines("toy", m)
    for text in ("1 (1 .. 2)", "8 (6 .. 10)"):
        assert text in lines[4]
    assert lines[5].startswith("ours reaches 50% of 4 items/s")
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    saved = json.loads(benchmarks.save("toy", m).read_text())["ways"]
    assert {name: record["wall_s"] for name, record in saved.items()} == QUICK
    assert saved["ours"]["ratio"] == {"median": 8.0, "smallest": 6.0, "largest": 10.0}
    advice = [_turns.advice(way([1.0, wall, 1.0], [1.0, cpu, 1.0])) for wall, cpu in ((1.05, 1), (2, 1.05), (2, 2))]
    assert [bool(text) and "CPU seconds and" in str(text) for text in advice] == [False, True, False]


def test_a_misspelt_benchmark_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(SystemExit, match=r"trian.*train"):
        __main__.main(["trian"])


def test_a_network_without_a_dataset_reads_the_items_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SHAPE", SIZES["small"])
    vectors = encode.encoded("float32").result
    assert vectors.shape == (encode.ITEMS, SIZES["small"].width)
    assert len(np.unique(vectors, axis=0)) == encode.ITEMS


def test_a_benchmark_that_lacks_something_says_so_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lacking.py").write_text("import benchmarks\ndef run(): raise benchmarks.Absent('no data; get it')\n")
    (tmp_path / "other.py").write_text("def run(): raise KeyError('it ran')\n")
    monkeypatch.setattr(benchmarks, "__path__", [str(tmp_path)])
    monkeypatch.setattr(waiting, "choose", lambda: None)
    with pytest.raises(KeyError, match="it ran"):
        __main__.main([])
    assert capsys.readouterr().out == "lacking: not run: no data; get it\n\n"
    with pytest.raises(SystemExit, match=r"^lacking: no data; get it$"):
        __main__.main(["lacking"])


def test_accuracy_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_baby, "DATA", tmp_path / "baby.inter")
    with pytest.raises(benchmarks.Absent, match=r"baby\.inter is not there; ALIGNREC_BABY=PATH"):
        accuracy.run()
    _baby.DATA.write_text("userID\titemID\trating\ttimestamp\tx_label\n1\t2\t5\t0\t0\n0\t1\t5\t0\t1\n1\t0\t5\t0\t0\n")
    split = _baby.published_split()
    assert (split.n_users, split.n_items, split.train.items.tolist(), len(split.test)) == (2, 3, [0, 2], 0)
    assert (split.valid.users.tolist(), split.valid.items.tolist()) == ([0], [1])
    monkeypatch.setattr(accuracy, "PYTHON", tmp_path / "recbole/bin/python")
    with (
        pytest.raises(benchmarks.Absent, match=r"no .*/python: python -m venv .*/recbole && .* install 'recbole=="),
        accuracy.recbole(tmp_path / "baby", split, {}, 0),
    ):
        pass


def test_epochs_are_taken_by_turns_until_none_gets_better_and_the_time_is_that_of_the_median_draw() -> None:
    recalls = {"a": [0.1, 0.3, 0.2, 0.2, 0.2, 0.2], "b": [0.1, 0.2, 0.25, 0.4, 0.3, 0.3]}
    order: list[str] = []

    def epoch(name: str) -> Turn[float]:
        order.append(name)
        return Turn(60.0, 120.0, recalls[name][order.count(name) - 1])

    turns = accuracy.race({name: partial(epoch, name) for name in recalls}, patience=2)
    assert "".join(order) == "abbaabbaabba"  # b is best after four, two more do not pass it
    assert [accuracy.best(way) for way in turns.values()] == [0.3, 0.4]
    assert [accuracy.epochs_to(0.285, iter(way).__next__) for way in turns.values()] == [2, 4]
    with pytest.raises(RuntimeError, match=r"below 0\.2000 after 100 epochs"):
        accuracy.epochs_to(0.2, lambda: Turn(1.0, 1.0, 0.1))
    pairs = Pairs(np.array([0, 1], np.int32), np.array([0, 2], np.int32))
    draws = {"ours": [2, 3, 5], "recbole": [4, 6, 9]}
    m = accuracy.measured(
        Split(2, 3, pairs, pairs, pairs), {"ours": turns["a"], "recbole": turns["b"]}, 0.285, draws, {}
    )
    assert (m.figure("ours"), m.figure("recbole"), m.ratio("ours").median) == (180, 360, 2)
