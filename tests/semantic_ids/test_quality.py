"""Codes of toy catalogues, judged by hand."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.semantic_ids import quality
from pipeline.semantic_ids.quality import Codes, Reference

CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 1]], np.int32)
"""two prefixes of three items; items 0, 1 and items 3, 4 share all codes"""
EDGES = [(0, 0), (0, 1), (0, 2), (0, 3), (5, 4), (6, 0)]
"""(item, neighbour); items count from 0 to 6, and 6 has no codes"""
BOUGHT = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 3), (1, 3), (2, 5), (3, 4), (3, 6)]
"""(user, item): user 2 has one item, user 3 one with codes, user 1 bought item 3 twice"""
LABELS = [0, 0, 1, 1, 1, -1, 0]


def reference(items: int = 7, **changed: Any) -> Reference:
    edges, bought = np.array(EDGES), np.array(BOUGHT)
    given = {
        "items": items, "edges": [(edges[:, 0], edges[:, 1])], "user": bought[:, 0], "item": bought[:, 1],
        "label": np.array(LABELS),
    }  # fmt: skip
    return Reference(**(given | changed))


def judged(codes: np.ndarray = CODES, k: int = 2, **changed: Any) -> dict[str, Any]:
    return quality.judged(Codes(np.arange(len(codes)), codes, k, **changed), reference())


def test_collisions_before_and_after_each_policy() -> None:
    thirds = {"head": 1.0, "middle": None, "tail": 0.5}  # items 0 and 3 have two interactions, the others one
    assert judged()["collisions"] == {"before": round(4 / 6, 6), "after": round(4 / 6, 6)} | thirds
    suffix = np.array([0, 1, 0, 0, 1, 0], np.int32)
    assert judged(suffix=suffix)["collisions"] == {"before": round(4 / 6, 6), "after": 0.0} | thirds
    moved = CODES.copy()
    moved[1, 1] = 1  # which item 2 has
    settled = judged(moved, before=CODES)["collisions"]
    assert settled == {"before": round(4 / 6, 6), "after": round(4 / 6, 6)} | thirds


def test_use_of_codes() -> None:
    even, one = np.array([0, 1, 2, 3]), np.zeros(4, int)
    assert quality.used(even, 4) == {"used": 1.0, "perplexity": 4.0, "gini": 0.0}
    assert quality.used(one, 4) == {"used": 0.25, "perplexity": 1.0, "gini": 0.75}
    skewed = quality.used(np.array([0, 0, 0, 1]), 4)
    # counts 0, 0, 1, 3: half the mean absolute difference of all pairs, over the mean
    counts = [0, 0, 1, 3]
    assert skewed["gini"] == sum(abs(a - b) for a in counts for b in counts) / (2 * 4 * 4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert skewed["perplexity"] == pytest.approx(math.exp(entropy), abs=1e-6)


def test_entropy_of_prefixes() -> None:
    first, both = judged()["prefixes"]
    assert (first["distinct"], first["bits"], first["most_bits"]) == (2, 1.0, 1.0)
    expected = -2 * (2 / 6 * math.log2(2 / 6) + 1 / 6 * math.log2(1 / 6))
    assert (both["distinct"], both["bits"], both["most_bits"]) == (4, round(expected, 6), 2.0)
    assert judged(k=64)["prefixes"][1]["most_bits"] == round(math.log2(6), 6)  # six items cannot have more prefixes


def test_neighbours_that_share_a_prefix() -> None:
    figures = judged()
    first, both = figures["prefixes"]
    assert first["neighbours"] == 3 / 4  # of 0-1, 0-2, 0-3 and 5-4; an item itself and one without codes do not count
    assert both["neighbours"] == 1 / 4
    assert first["neighbours_chance"] == round(2 * 3 / 15, 6)  # of the 15 pairs 3 are in each prefix
    assert both["neighbours_chance"] == round(2 / 15, 6)
    second = figures["levels"][1]
    assert second["neighbours"] == 2 / 4  # 0-1, and 0-3, which share the second code alone
    assert second["neighbours_chance"] == round((6 + 1) / 15, 6)
    assert figures["levels"][0]["neighbours"] == first["neighbours"]


def test_items_bought_together() -> None:
    first, both = judged()["prefixes"]
    assert first["co_purchase"] == (1 + 0) / 2  # user 0's pairs share it all, user 1's does not
    assert both["co_purchase"] == round((1 / 3 + 0) / 2, 6)
    draws = {0: 1 / 3 + 1 / 2, 1: 1 / 3, 2: 1 / 3, 3: 1 / 2}  # of each item, by the two users
    pairs = {(a, b): draws[a] * draws[b] for a, b in combinations(draws, 2)}
    alike = sum(p for (a, b), p in pairs.items() if CODES[a, 0] == CODES[b, 0])
    assert first["co_purchase_chance"] == pytest.approx(alike / sum(pairs.values()), abs=1e-6)


def test_purity_of_categories() -> None:
    first, both = judged()["prefixes"]
    assert first["category"] == round((1 + 1) / (3 + 1), 6)  # pairs 01, 02, 12 and 34: items without a label are left
    assert both["category"] == 1.0  # pairs 01 and 34
    assert first["category_chance"] == both["category_chance"] == (1 + 3) / 10


def test_codes_of_nothing_have_no_figures() -> None:
    empty = quality.judged(Codes(np.empty(0, np.int64), np.empty((0, 2), np.int32), 4), reference())
    assert empty["items"] == 0
    assert empty["collisions"] == {"before": 0.0, "after": 0.0} | dict.fromkeys(quality.POPULARITY)
    assert {empty["prefixes"][0][key] for key in ("neighbours", "neighbours_chance", "co_purchase", "category")} == {
        None
    }
    one = quality.judged(Codes(np.array([3]), np.array([[1, 1]], np.int32), 4), reference())
    assert one["prefixes"][1]["neighbours_chance"] is None


@given(st.data())
def test_the_order_of_items_changes_nothing(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 4))
    codes = np.array(
        data.draw(st.lists(st.lists(st.integers(0, k - 1), min_size=3, max_size=3), min_size=n, max_size=n))
    )
    rows = np.sort(np.array(data.draw(st.permutations(range(10))))[:n])
    pair = st.tuples(st.integers(0, 9), st.integers(0, 9))
    edges, bought = (np.array(data.draw(st.lists(pair, min_size=1, max_size=20))) for _ in range(2))
    label = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=10, max_size=10)))
    new = np.array(data.draw(st.permutations(range(10))))  # of each item
    one = quality.judged(
        Codes(rows, codes, k), Reference(10, [(edges[:, 0], edges[:, 1])], bought[:, 0], bought[:, 1], label)
    )
    order = np.argsort(new[rows])
    moved = np.empty(10, int)
    moved[new] = label
    other = quality.judged(
        Codes(new[rows][order], codes[order], k),
        Reference(10, [(new[edges[:, 0]], new[edges[:, 1]])], bought[:, 0], new[bought[:, 1]], moved),
    )
    assert flat(one) == pytest.approx(flat(other), abs=2e-6, nan_ok=True)


def flat(figures: Any) -> list[float]:
    if isinstance(figures, dict):
        return [v for value in figures.values() for v in flat(value)]
    if isinstance(figures, list):
        return [v for value in figures for v in flat(value)]
    return [math.nan if figures is None else figures]
