"""Benchmarked variants alternate, ratios are taken within a round; and weights and pictures are as published."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shop import toy

import benchmarks
from alignrec.pipeline.beit3 import checkpoints, published
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.report.gallery import pick_neighbours
from alignrec.pipeline.report.outputs import Outputs
from benchmarks import Measurement, _neighbours, _official, _turns, million
from benchmarks._turns import Turn, Way

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


# --- the curve


def test_exponents_and_larger_catalogues_come_from_lines_through_logarithms() -> None:
    costs = {
        n: {"linear": million.Cost(n / 100, 1.0, 50.0, 40.0), "square": million.Cost(n**2 / 1e4, 2.0, 90.0, n / 10)}
        for n in (300, 1000, 3000)
    }
    curves = million.fit_stages(costs)
    n = million.LARGER
    np.testing.assert_allclose(curves["linear"], (1, n / 100, 0, 40), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(curves["square"], (2, n**2 / 1e4, 1, n / 10), rtol=1e-6)
    assert curves["all"].cpu == curves["linear"].cpu + curves["square"].cpu
    assert curves["all"].own == curves["square"].own
    lines = million.curve_lines(curves)
    assert lines[3] == "| square | 2.00 | 10,000,000,000 | 1.00 | 1,000,000 |"
    table = million.table_lines(costs)
    assert table[2].startswith("| linear | 3 | 10 | 30 | 1 | 1 | 1 |")
    assert {line.count("|") for line in table} == {table[0].count("|")}


# --- files as published


SMALL = BEIT3_CONFIGS["small"]


def test_weights_have_the_names_shapes_and_heads_of_the_published_ones(tmp_path: Path) -> None:
    _official.beit3(tmp_path / "beit3.pth", SMALL)
    path = tmp_path / "beit3.pth"
    tensors = checkpoints.read_weights(path)
    shape = published.published_shape(tensors, "beit3.pth")
    assert (shape.vocab, shape.positions, shape.codes, shape.mlm) == (64_010, 1024, 8192, True)
    with torch.device("meta"):
        network = BEiT3(shape)
    assert {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in network.state_dict().items()}
    scales = torch.cat([t for name, t in tensors.items() if t.ndim == 1 and "layer_norm.A.weight" in name])
    assert abs(float(scales.mean()) - 1) < 0.01
    _official.beit3(tmp_path / "again.pth", SMALL)
    assert (tmp_path / "again.pth").stat().st_size == (tmp_path / "beit3.pth").stat().st_size
    again = checkpoints.read_checkpoint(tmp_path / "again.pth")
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())


# --- the README's picture


def test_the_picture_shows_each_item_and_its_neighbours_from_the_graph(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    outputs = Outputs(layout)
    path = tmp_path / "neighbours.png"
    _neighbours.main([str(path), "shop", "minilm-cnn", "beit3", "--root", str(tmp_path)])
    picture = Image.open(path)
    assert picture.text == {_neighbours.FEATURES: "minilm-cnn beit3"}

    near = pick_neighbours(outputs, _neighbours.ITEMS, _neighbours.SEED)
    assert near is not None
    cells = _neighbours.draw_cells(outputs.images("image"), toy.TITLES, {*toy.ITEM_ID.to_pylist()})
    step = _neighbours.CELL + _neighbours.GAP
    left = _neighbours.MARGIN + _neighbours.CELL + _neighbours.SPACE
    for row, item in enumerate(near.items):
        top = _neighbours.MARGIN + _neighbours.HEADING + row * step
        for place, neighbour in enumerate(near.sets["minilm-cnn"][item]):
            corner = left + place * step + 20, top + 60  # below a title, and within an image
            expected = cells[neighbour].getpixel((20, 60))
            difference = np.subtract(picture.convert("RGB").getpixel(corner), expected)
            assert np.abs(difference).max() < 16, (item, neighbour)  # the palette is of few colours
