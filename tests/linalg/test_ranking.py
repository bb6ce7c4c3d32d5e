"""Ranks of targets, against a sort of each set's cosines."""

import numpy as np
import pytest
from scipy import sparse

from alignrec.pipeline.linalg import ranking
from alignrec.pipeline.linalg.ranking import rank_targets

ITEMS, WIDTH = 40, 6
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(ITEMS, WIDTH)).astype(np.float32)
FEATURES[30:] = FEATURES[20:30]  # each of these is tied with another
FEATURES[5] = 0


def count_by_sort(members: np.ndarray, target: int, candidates: np.ndarray, features: np.ndarray) -> tuple[int, int]:
    """Return how many candidates score above the target, and as high."""
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    scores = units.astype(np.float64) @ units[members].astype(np.float64).sum(axis=0)
    ranked = scores[np.setdiff1d(candidates, np.flatnonzero(members))]
    slack = 1e-6 * members.sum()
    tied = np.abs(ranked - scores[target]) <= slack
    return int((ranked > scores[target] + slack).sum()), int(tied.sum())


@pytest.mark.parametrize("n_sets", [7, 200])  # multiplied by set, and by item
@pytest.mark.parametrize("scores_held", [1, 1 << 23])
def test_ranks_are_those_of_a_sort(n_sets: int, scores_held: int) -> None:
    members = RNG.random((n_sets, ITEMS)) < 0.2
    members[:, 0] = True
    candidates = np.arange(3, ITEMS)
    pairs = [
        (row, int(target))
        for row in range(n_sets)
        for target in np.setdiff1d(candidates, np.flatnonzero(members[row]))[-3:]
    ]
    rows, targets = np.array(pairs).T

    matrix = sparse.csr_array(members.astype(np.float32))
    ranks = rank_targets(FEATURES, matrix, rows, targets, candidates, scores_held, 2 * scores_held)

    expected = [count_by_sort(members[row], target, candidates, FEATURES) for row, target in pairs]
    assert list(zip(ranks.better.tolist(), ranks.tied.tolist(), strict=True)) == expected
    assert max(ranks.tied) > 1


def test_a_tied_target_is_hit_as_often_as_a_random_order_puts_it_there() -> None:
    ranks = ranking.Ranks(better=np.array([0, 2, 5]), tied=np.array([1, 4, 2]))
    assert ranks.hits(3).tolist() == [1, 0.25, 0]
