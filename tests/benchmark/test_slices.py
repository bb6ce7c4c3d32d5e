"""Slices of a shop that is small enough to count by hand."""

import numpy as np
import pytest
from shops import interactions

from alignrec.pipeline.benchmark import slices
from alignrec.pipeline.evaluation.metrics import judge_rankings
from alignrec.pipeline.interactions import split

# user 0 has three train items, user 1 four; item 3 is known to nobody in train, item 4 to user 1 alone
ROWS = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 4, 0), (0, 4, 2), (1, 3, 2), (1, 5, 2)]
TOP = np.array([[4, 3], [0, 3]], np.int32)
KS = (1, 2)


@pytest.fixture
def figures() -> dict[tuple[str, str, str, int], slices.Figure]:
    parts = split.load_split(interactions(ROWS), 2, 6)
    judged = judge_rankings(TOP, np.array([0, 1], np.int32), parts.test, 6, KS)
    return {(f.slice, f.label, f.metric, f.k): f for f in slices.slice_figures(judged, parts, KS)}


def test_users_by_length_of_history(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["history", "3", "recall", 1][2:] == (1, "recall", 1, 1.0)
    assert figures["history", "4-5", "recall", 2].value == 0.5
    assert figures["history", "20+", "ndcg", 1][2:] == (0, "ndcg", 1, None)
    users = sum(f.n for key, f in figures.items() if key[0] == "history" and key[2:] == ("recall", 1))
    assert users == 2


def test_items_by_popularity_and_cold_ones(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["popularity", "cold", "recall", 2][2:] == (2, "recall", 2, 0.5)  # 3 was hit, 5 was not
    assert figures["popularity", "1", "recall", 1][2:] == (1, "recall", 1, 1.0)  # item 4, the least popular known one
    assert figures["popularity", "cold", "exposure", 2].value == 0.5
    exposures = [f.value or 0 for key, f in figures.items() if key[0] == "popularity" and key[2:] == ("exposure", 1)]
    assert sum(exposures) == 1


def test_every_tenth_has_as_many_items() -> None:
    rows = [(user, item, 0) for item in range(20) for user in range(item + 1)] + [(0, 20, 2)]
    parts = slices.popularity_parts(split.load_split(interactions(rows), 20, 21))
    assert parts.tolist() == [*np.repeat(np.arange(1, 11), 2), 0]


def test_coverage_gini_and_novelty(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["catalogue", "all", "coverage", 2].value == pytest.approx(3 / 6)  # items 0, 3, 4
    # two places of item 3, one each of 0 and 4, none of the other three: sorted 0 0 0 1 1 2
    assert figures["catalogue", "all", "gini", 2].value == pytest.approx((1 * 1 + 3 * 1 + 5 * 2) / (6 * 4))
    # item 0: both users have it, 0 bits; item 4: one of two, 1 bit; item 3: nobody, counts as one
    assert figures["catalogue", "all", "novelty", 1].value == pytest.approx((1 + 0) / 2)
    assert figures["catalogue", "all", "novelty", 2].value == pytest.approx((1 + 1 + 0 + 1) / 4)


def test_gini_of_equal_counts_is_0_and_of_one_item_alone_near_1() -> None:
    assert slices.gini(np.full(5, 3)) == 0
    assert slices.gini(np.array([0, 0, 0, 7])) == pytest.approx(1 - 1 / 4)
    assert slices.gini(np.zeros(3, int)) is None
