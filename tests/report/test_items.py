"""Items of the page, and their neighbours in the graphs."""

from pathlib import Path

import pyarrow as pa
import toy

from alignrec.pipeline.report import gallery
from alignrec.pipeline.report.outputs import Outputs


def test_popularity_counts_train_only(tmp_path: Path) -> None:
    outputs = Outputs(toy.outputs(tmp_path), "sample", "beit3")
    assert gallery.item_popularity(outputs.interactions, toy.ITEMS) == [1, 2, 2, 2, 1, 0]


def test_the_neighbours_are_the_graphs() -> None:
    edges = pa.table(
        {"item_id": [1, 1, 1, 0, 0], "neighbour_id": [1, 2, 0, 0, 2], "rank": [0, 1, 2, 0, 1], "cosine": [1.0] * 5}
    )
    assert gallery.nearest_neighbours(edges, 1) == {0: [2], 1: [2]}
    assert gallery.nearest_neighbours(edges, 5) == {0: [2], 1: [2, 0]}


def test_a_choice_takes_every_category_before_any_twice() -> None:
    chosen = gallery.choose_items(["a", "a", "a", "b", "c", "d"], [True] * 5 + [False], 4, seed=1)
    assert {["a", "a", "a", "b", "c", "d"][i] for i in chosen[:3]} == {"a", "b", "c"}
    assert 5 not in chosen
    assert gallery.choose_items(["a"] * 9, [True] * 9, 4, seed=1) == gallery.choose_items(
        ["a"] * 9, [True] * 9, 4, seed=1
    )
