"""Geometry of feature sets, and similarity of two. No I x I matrix is held.

I items, R of them whose neighbours are searched, F and G feature widths, K neighbours.
"""

from collections.abc import Sequence

import numpy as np

from pipeline import engine
from pipeline.ops.rows import unit_rows


def neighbours(features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24) -> np.ndarray:
    """Return the K nearest others of items by cosine, int32 [R, K], ascending; equal to 1e-6 they tie, lower ids win.

    Args:
        features: float32 [I, F].
        k: less than I.
        rows: int [R], the items whose neighbours are searched; all by default.
        scores_held: scores held, which bounds memory.
    """
    unit, n = unit_rows(features)[0], len(features)
    rows = np.arange(n) if rows is None else rows
    block = max(1, scores_held // engine.CORES // n)

    def of_block(at: int) -> np.ndarray:
        own = rows[at : at + block]
        # one whole number orders by score, then by id: partitioning it breaks ties the same way everywhere
        key = -np.rint((unit[own] @ unit.T) * 1e6).astype(np.int64) * n + np.arange(n)
        key[np.arange(len(own)), own] = np.iinfo(np.int64).max
        return np.sort(np.argpartition(key, k - 1, axis=1)[:, :k], axis=1).astype(np.int32)

    return np.concatenate(list(engine.threads(of_block, range(0, len(rows), block))))


def nearest(features: np.ndarray, items: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return item -> its K nearest others, best first, of a few items; ties as in `neighbours`."""
    unit = unit_rows(features)[0]
    neighbours = {}
    for item in items:  # a few
        scores = np.rint((unit @ unit[item]) * 1e6)
        scores[item] = -np.inf
        neighbours[int(item)] = np.argsort(-scores, kind="stable")[:k].tolist()
    return neighbours


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of neighbours, int [R, K] of the same items, that two sets share: float64 [R]."""
    n, k = a.shape
    offset = np.arange(n, dtype=np.int64)[:, None] * (int(max(a.max(), b.max())) + 1)
    return np.isin(a + offset, b + offset).sum(axis=1) / k
