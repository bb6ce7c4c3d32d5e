"""Rank of targets among candidates by the mean cosine to a set of items.

I items, N sets, n targets, F width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignrec.pipeline.linalg.projections import float64_units
from alignrec.pipeline.runtime import engine

if TYPE_CHECKING:
    from scipy import sparse

# cosines within this are equal: features have single precision, and products of equal rows differ
# by less
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
        """Return the probability of the target to be among the K best, float64 [n], if ties are in
        random order.
        """
        probability: np.ndarray = np.clip((k - self.better) / self.tied, 0, 1)
        return probability


def rank_targets(
    features: np.ndarray,
    members: sparse.csr_array,
    rows: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray,
) -> Ranks:
    """Rank candidates, int64 [C], by cosine of features, float32 [I, F], to sets of items, the rows of `members`.

    Target j, one of the candidates, is ranked for set `rows[j]`; members of that set are left out, and are no targets.
    """
    used = np.unique(members.indices)
    weights = members[:, used].astype(np.float64)  # [N, used]
    units = float64_units(features, used)
    # multiply by set or by item, whichever takes fewer products
    sums = weights @ units if members.shape[0] <= len(used) else None  # [N, F]

    def sum_members(sets: np.ndarray) -> np.ndarray:
        return weights[sets] @ units if sums is None else sums[sets]

    # sums of the members' cosines to the target, which may differ by rounding from the same
    # products below
    score = np.empty(len(targets))
    pairs_held = max(1, SCORES_HELD // features.shape[1])
    for start in range(0, len(targets), pairs_held):
        pairs = slice(start, start + pairs_held)
        vectors = float64_units(features, targets[pairs])
        score[pairs] = np.einsum("nf,nf->n", sum_members(rows[pairs]), vectors)
    slack = TIE * np.diff(members.indptr)[rows]
    low, high = score - slack, score + slack

    better = np.zeros(len(targets), np.int64)
    reached = np.zeros(len(targets), np.int64)
    left_out = members[:, candidates].tocsc()
    scores_per_candidate = members.shape[0] + (len(used) if sums is None else 0)
    block = max(1, SCORES_HELD // engine.CORES // max(1, scores_per_candidate))
    for start in range(0, len(candidates), block):
        columns = float64_units(features, candidates[start : start + block]).T
        scores = weights @ (units @ columns) if sums is None else sums @ columns  # [N, block]
        scores[left_out[:, start : start + block].nonzero()] = -np.inf

        pairs_compared = max(1, SCORES_COMPARED // scores.shape[1])
        for first in range(0, len(targets), pairs_compared):
            pairs = slice(first, first + pairs_compared)
            of_pairs = scores[rows[pairs]]
            better[pairs] += np.count_nonzero(of_pairs > high[pairs, None], axis=1)
            reached[pairs] += np.count_nonzero(of_pairs >= low[pairs, None], axis=1)
    return Ranks(better, reached - better)
