"""Ways take turns, and what is said of their seconds; nothing here depends on how fast the machine is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import alignrec

import benchmarks
import schemas
from benchmarks import Measurement, __main__, _catalogue, _turns, notebook, scale
from benchmarks import _plain_catalogue as plain
from benchmarks._turns import Turn, Way
from pipeline import io, memory
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows

QUICK = {"ours": [1.0, 1.0, 2.0], "plain": [4.0, 5.0, 6.0]}


def way(wall: list[float], cpu: list[float] | None = None, work: float = 1) -> Way[None]:
    return Way([Turn(w, c, None) for w, c in zip(wall, cpu or wall, strict=True)], work)


def measured() -> Measurement:
    ways = {"plain": way(QUICK["plain"]), "ours": way(QUICK["ours"], [1.0, 1.0, 1.0], work=2)}
    return Measurement(ways, "ours", "plain", "items/s", True, 4.0, "a limit", "some work")


def work_for(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


def test_every_way_has_a_turn_a_round_and_each_round_begins_with_another() -> None:
    order: list[str] = []

    def turn(name: str) -> Callable[[], Turn[int]]:
        return lambda: Turn(1.0, 1.0, order.append(name) or len(order))

    ways = _turns.take({name: turn(name) for name in "abc"}, rounds=4, work={"a": 1, "b": 2, "c": 3})
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert [turn.result for turn in ways["b"].turns] == [2, 4, 9, 11]
    assert ways["b"].last == 11
    assert ways["c"].work == 3


def test_a_warm_up_does_not_count() -> None:
    order: list[str] = []
    turns = {name: lambda name=name: Turn(1.0, 1.0, order.append(name)) for name in "ab"}
    ways = _turns.take(turns, rounds=1, warm_up=True)
    assert order == ["a", "b", "a", "b"]
    assert len(ways["a"].turns) == 1


def test_waiting_takes_wall_seconds_and_no_cpu_seconds() -> None:
    turn = _turns.timed(time.sleep, 0.2)
    assert turn.wall >= 0.2
    assert turn.cpu < 0.1


def test_cpu_seconds_of_this_process_and_of_its_children_count() -> None:
    assert _turns.timed(work_for, time.process_time() + 0.1).cpu >= 0.1
    code = "import time\nwhile time.process_time() < 0.2: pass"
    assert _turns.timed(subprocess.run, [sys.executable, "-c", code]).cpu >= 0.2
    assert _turns.timed(_turns.alone, _turns.timed, time.sleep, 0).cpu > 0


def test_a_process_of_its_own_has_its_environment_and_memory_and_ends_with_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    block = bytearray(os.urandom(1)) * (256 << 20)
    assert memory.peak_mib() >= 256
    del block
    with _turns.process({"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": ""}) as one, _turns.process() as other:
        pids = [one(os.getpid), one(os.getpid), other(os.getpid)]
        assert (one(os.getenv, "GOMP_SPINCOUNT"), one(os.getenv, "OMP_WAIT_POLICY")) == ("7", None)
        assert other(os.getenv, "OMP_WAIT_POLICY") == "ACTIVE"
        if Path("/proc/self/status").exists():
            assert other(memory.peak_mib) < memory.peak_mib()
    assert pids[0] == pids[1]
    assert len({*pids, os.getpid(), _turns.alone(os.getpid)}) == 4


def test_a_ratio_is_taken_within_each_round() -> None:
    m = measured()
    assert m.ratio("ours") == (8.0, 6.0, 10.0)  # 2 * 4/1, 2 * 5/1, 2 * 6/2; medians would give 10
    assert m.ratio("ours", "cpu") == (10.0, 8.0, 12.0)
    assert m.figure("ours") == 2.0
    assert m.share_of_limit == 0.5


def test_the_advice_says_which_figures_to_trust() -> None:
    assert _turns.advice(way([1.0, 1.05, 1.0])) is None
    assert "trust CPU seconds and ratios" in str(_turns.advice(way([1.0, 2.0, 1.0], [1.0, 1.05, 1.0])))
    assert "trust the ratios alone" in str(_turns.advice(way([1.0, 2.0, 1.0], [1.0, 2.0, 1.0])))


def test_the_table_shows_spread_and_cpu_seconds() -> None:
    lines = benchmarks.lines("toy", measured())
    assert lines[4].split("  ")[0] == "ours"
    assert "1 (1 .. 2)" in lines[4]
    assert "8 (6 .. 10)" in lines[4]
    assert lines[5].startswith("ours reaches 50% of 4 items/s")
    assert any(line.startswith("ours: wall seconds vary, CPU seconds do not") for line in lines)


def test_results_carry_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    saved = json.loads(benchmarks.save("toy", measured()).read_text())
    assert {name: record["wall_s"] for name, record in saved["ways"].items()} == QUICK
    assert saved["ways"]["ours"]["cpu_s"] == [1.0, 1.0, 1.0]
    assert saved["ways"]["ours"]["ratio"] == {"median": 8.0, "smallest": 6.0, "largest": 10.0}


def test_a_misspelt_benchmark_is_refused_in_one_line_with_the_names_that_exist() -> None:
    with pytest.raises(SystemExit) as error:
        __main__.main(["trian"])
    names = [path.stem for path in sorted(Path(benchmarks.__file__).parent.glob("[!_]*.py"))]
    assert error.value.code == f"benchmarks: no benchmark is called trian; choose from {', '.join(names)}"


def test_what_starting_takes_is_no_part_of_the_power_of_time() -> None:
    items = np.array(scale.SIZES) / scale.SIZES[0]
    for power in (1, 2):
        _, found = scale.figures([100, 110, 150], list(3 + items**power))
        assert found == f"{power}.0"
    kib, found = scale.figures([100, 110, 140], [5.0, 5.1, 5.0])
    assert (kib, found) == (1024 * 30 / (scale.SIZES[2] - scale.SIZES[1]), "")
    assert scale.figures([100, 110, 105], [1.0, 2.0, 3.0])[0] == 0


def test_a_notebook_and_our_stages_make_the_same_vectors_of_the_same_items(tmp_path: Path) -> None:
    plain.write_networks(networks := tmp_path / "networks")
    _catalogue.write(files := tmp_path / "files", 200)
    io.write_json(tmp_path / "params.yaml", scale.parameters(files, notebook.settings(networks)))
    for stage in notebook.STAGES:
        assert alignrec(stage.name, scale.DATASET, "--root", tmp_path, cwd=tmp_path).exit_code == 0
    frame, names = plain.interactions(files)
    assert frame["item_id"].max() + 1 == len(names)
    layout = Layout(tmp_path, scale.DATASET)
    assert len(frame) == io.rows([layout.interactions])
    made = io.read_features(layout.features("both"))
    at = [made["asin"].to_pylist().index(name) for name in names]
    theirs = plain.encode(networks, texts := plain.items(files, names), plain.images(files, names))
    text = io.read_table(layout.items, schemas.ITEMS)["text"].to_pylist()
    assert texts == [text[i] for i in at]
    for half in np.split(np.stack([theirs, io.matrix(made["vector"])[at]]), 2, axis=2):
        mine, other = (unit_rows(vectors)[0] for vectors in half)
        assert (mine * other).sum(axis=1).min() > 0.99
    found = plain.graph(np.hstack([unit_rows(half)[0] for half in np.split(theirs, 2, axis=1)]))
    edges = io.read_table(layout.edges("both"), schemas.EDGES).to_pydict()
    ours = {*zip(edges["item_id"], edges["neighbour_id"], strict=True)}
    same = {(at[item], at[other]) for item, row in enumerate(found.tolist()) for other in row}
    assert len(ours) == len(same) == plain.NEIGHBOURS * len(names)
    assert len(ours & same) > 0.95 * len(ours)


def test_items_fit_by_growth_and_pairs_by_their_square() -> None:
    items = np.array(notebook.SIZES)
    assert notebook.items_that_fit(list(500 + items / 1024)) == pytest.approx(1024 * (notebook.MEMORY - 500))
    whole = list(4 * items**2 / 2**20)
    assert notebook.items_that_fit(whole, pairs=4) == pytest.approx((24 * 2**30 / 4) ** 0.5)
    assert notebook.items_that_fit([500.0] * 3) == float("inf")
