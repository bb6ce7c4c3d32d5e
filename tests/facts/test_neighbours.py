"""Neighbours come from the graph, and the gallery from every category."""

import pyarrow as pa

from pipeline.facts.neighbours import choose, nearest


def test_the_neighbours_are_the_graphs() -> None:
    edges = pa.table(
        {"item_id": [1, 1, 1, 0, 0], "neighbour_id": [1, 2, 0, 0, 2], "rank": [0, 1, 2, 0, 1], "cosine": [1.0] * 5}
    )
    assert nearest(edges, 1) == {0: [2], 1: [2]}
    assert nearest(edges, 5) == {0: [2], 1: [2, 0]}


def test_a_choice_takes_every_category_before_any_twice() -> None:
    chosen = choose(["a", "a", "a", "b", "c", "d"], [True] * 5 + [False], 4, seed=1)
    assert {["a", "a", "a", "b", "c", "d"][i] for i in chosen[:3]} == {"a", "b", "c"}
    assert 5 not in chosen
    assert choose(["a"] * 9, [True] * 9, 4, seed=1) == choose(["a"] * 9, [True] * 9, 4, seed=1)
