"""Rank of targets among candidates by the mean cosine to a set of items.

I items, N sets, n targets, C candidates, F width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignrec.pipeline.linalg.projections import float64_units
from alignrec.pipeline.runtime import engine

if TYPE_CHECKING:
    from scipy import sparse

# Cosines within this are equal: features have single precision, and products of equal rows differ
# by less.
TIE = 1e-6
# Scores (float64) in memory at a time, of all threads, without effect on results. Small blocks are
# faster, as the sparse product gathers their rows, which should fit the processor's cache.
SCORES_HELD = 1 << 23
SCORES_COMPARED = 1 << 17  # at a time, which fit the cache


class Ranks(NamedTuple):
    """How many candidates stand above each of n targets, and how many are tied with it."""

    better: np.ndarray  # int64 [n]
    tied: np.ndarray  # int64 [n], the target included

    def hits(self, k: int) -> np.ndarray:
        """Return the probability that the target is among the K best, float64 [n].

        Ties are in random order.
        """
        probability: np.ndarray = np.clip((k - self.better) / self.tied, 0, 1)
        return probability


class SummedCosines:
    """Sums of the cosines of an item to the members of sets."""

    def __init__(self, features: np.ndarray, members: sparse.csr_array) -> None:
        used = np.unique(members.indices)
        self._features = features
        self._weights = members[:, used].astype(np.float64)  # [N, used]
        self._units = float64_units(features, used)
        self._sums: np.ndarray | None = None
        # scores that a candidate takes
        self.height = max(1, members.shape[0] + len(used))
        # multiply by set or by item, whichever takes fewer products
        if members.shape[0] <= len(used):
            self._sums = self._weights @ self._units  # [N, F]
            self.height = max(1, members.shape[0])

    def to_candidates(self, candidates: np.ndarray) -> np.ndarray:
        """Return the sums of all sets, float64 [N, C]."""
        columns = float64_units(self._features, candidates).T
        if self._sums is None:
            return self._weights @ (self._units @ columns)
        return self._sums @ columns

    def to_targets(self, rows: np.ndarray, targets: np.ndarray, scores_held: int) -> np.ndarray:
        """Return the sum of each pair of a set and a target, float64 [n]."""
        scores = np.empty(len(targets))
        step = max(1, scores_held // self._features.shape[1])
        for start in range(0, len(targets), step):
            pairs = slice(start, start + step)
            units = float64_units(self._features, targets[pairs])
            scores[pairs] = np.einsum("nf,nf->n", self._sum_vectors(rows[pairs]), units)
        return scores

    def _sum_vectors(self, rows: np.ndarray) -> np.ndarray:
        if self._sums is None:
            return self._weights[rows] @ self._units
        return self._sums[rows]


def rank_targets(
    features: np.ndarray,
    members: sparse.csr_array,
    rows: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray,
    scores_held: int = SCORES_HELD,
    scores_compared: int = SCORES_COMPARED,
) -> Ranks:
    """Rank candidates, int64 [C], by cosine of features, float32 [I, F], to rows of `members`.

    Target j, one of the candidates, is ranked for set `rows[j]`. Members of that set are left out,
    and are no targets.
    """
    cosines = SummedCosines(features, members)
    score = cosines.to_targets(rows, targets, scores_held)
    # sums differ by rounding from the same sums over blocks of candidates
    slack = TIE * np.diff(members.indptr)[rows]
    low = (score - slack)[:, None]
    high = (score + slack)[:, None]

    better = np.zeros(len(targets), np.int64)
    reached = np.zeros(len(targets), np.int64)
    left_out = members[:, candidates].tocsc()
    step = max(1, scores_held // engine.CORES // cosines.height)
    for start in range(0, len(candidates), step):
        block = slice(start, start + step)
        scores = cosines.to_candidates(candidates[block])
        scores[left_out[:, block].nonzero()] = -np.inf

        pairs_compared = max(1, scores_compared // scores.shape[1])
        for first in range(0, len(targets), pairs_compared):
            pairs = slice(first, first + pairs_compared)
            of_pairs = scores[rows[pairs]]
            better[pairs] += np.count_nonzero(of_pairs > high[pairs], axis=1)
            reached[pairs] += np.count_nonzero(of_pairs >= low[pairs], axis=1)

    return Ranks(better, reached - better)
