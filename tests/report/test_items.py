"""The items of the page: drawn by a rule, grouped by what sets them apart, with their neighbours by the graphs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import toy

from pipeline.report import neighbours
from pipeline.report.outputs import Outputs


def test_the_toy_shop_has_groups_of_special_items(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    bought = neighbours.popularity(outputs.interactions, toy.ITEMS)
    assert bought == [1, 2, 2, 2, 1, 0]
    assert neighbours.facets(outputs, bought) == {
        "no image": [4], "duplicate image": [0, 1, 2, 3, 5], "no text": [4], "cold": [5]
    }  # fmt: skip
    assert neighbours.shared(["a", "", "b", "a", ""]) == [0, 3]


def test_the_neighbours_are_the_graphs() -> None:
    edges = pa.table(
        {"item_id": [1, 1, 1, 0, 0], "neighbour_id": [1, 2, 0, 0, 2], "rank": [0, 1, 2, 0, 1], "cosine": [1.0] * 5}
    )
    assert neighbours.nearest(edges, 1) == {0: [2], 1: [2]}
    assert neighbours.nearest(edges, 5) == {0: [2], 1: [2, 0]}


def test_a_choice_takes_every_category_before_any_twice() -> None:
    chosen = neighbours.choose(["a", "a", "a", "b", "c", "d"], [True] * 5 + [False], 4, seed=1)
    assert {["a", "a", "a", "b", "c", "d"][i] for i in chosen[:3]} == {"a", "b", "c"}
    assert 5 not in chosen
    assert neighbours.choose(["a"] * 9, [True] * 9, 4, seed=1) == neighbours.choose(["a"] * 9, [True] * 9, 4, seed=1)


def test_columns_are_ours_the_best_rival_and_a_control(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    names = ["beit3", "beit3-raw", "minilm-cnn", "tfidf", "random", "shuffled"]
    figures = {name: {"hit@20": at} for name, at in (("tfidf", 0.5), ("minilm-cnn", 0.4), ("beit3-raw", 0.9))}
    vars(outputs)["probes"] = {"zero_shot": {"users": 4, "chance": {"hit@20": 0.1}} | figures}
    assert neighbours.columns(names, outputs) == ["beit3", "tfidf", "random"]
    assert neighbours.columns(["x"], outputs) == ["x"]
    assert neighbours.columns(["random", "y"], outputs) == ["y", "random"]


@pytest.mark.parametrize(("searchable", "mapped", "sets"), [(6, 6, 4), (2, 6, 3), (2, 5, 4)])
def test_a_larger_catalogue_has_fewer_images_sets_and_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searchable: int, mapped: int, sets: int
) -> None:
    layout = toy.outputs(tmp_path)
    toy.write_features(layout, "tfidf", np.random.default_rng(7).normal(size=(6, 2)), toy.ASINS)
    outputs = Outputs(layout, "sample", "beit3")
    every = neighbours.neighbours(outputs, 2, 0)
    monkeypatch.setattr(neighbours, "SEARCHABLE", searchable)
    monkeypatch.setattr(neighbours, "MAPPED", mapped)
    near = neighbours.neighbours(outputs, 2, 0)
    assert every
    assert near
    assert (len(near.sets), near.mapped) == (sets, mapped == 6)
    assert len(near.shown) == 6 or searchable < 6
    for name, nearest_of in near.sets.items():
        assert nearest_of == {item: every.sets[name][item] for item in (range(6) if near.mapped else near.items)}
