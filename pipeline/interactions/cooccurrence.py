"""Who has how much in common: users by items, and items by `|U_i & U_j| / sqrt(|U_i| |U_j|)`, item-CF's score.

Scores are compared by their square, a quotient of two whole numbers: equally close items have equal floats, and of
those the lower id comes first.

Letters: U users, I items, N nodes (either), B nodes of a block, K kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

BLOCK = 256
"""nodes whose counts with all others are held at a time, as those of all nodes may be dense"""


def bought(user: np.ndarray, item: np.ndarray, n_items: int) -> sp.csr_array:
    """Return R, float32 [U, I]: 1 where a user has an item, however often.

    Args:
        user: int [n], one row an interaction.
        item: int [n].
        n_items: I.
    """
    shape = (int(user.max(initial=-1)) + 1, n_items)
    seen = sp.csr_array((np.ones(len(user), np.float32), (user, item)), shape=shape)
    seen.data[:] = 1
    return seen


def common(sets: sp.csr_array, least: int = 1) -> Iterator[tuple[int, sp.csr_array]]:
    """Yield the first node of a block, and how much each of its nodes has in common with every other, [B, N].

    Args:
        sets: [N, n], 1 where a node has a thing.
        least: pairs with less in common have no entry.
    """
    by_thing = sp.csr_array(sets.T)
    for first in range(0, sets.shape[0], BLOCK):
        counts = sp.csr_array(sets[first : first + BLOCK] @ by_thing)
        counts.sort_indices()
        kept = (counts.indices != rows(counts) + first) & (counts.data >= least)
        starts = np.r_[0, np.cumsum(kept)][counts.indptr]
        yield first, sp.csr_array((counts.data[kept], counts.indices[kept], starts), shape=counts.shape)


def squared(seen: sp.csr_array, least: int = 1) -> Iterator[tuple[int, sp.csr_array]]:
    """Yield the first item of a block, and its items' squared scores with all others, float64 [B, I].

    Args:
        seen: R, [U, I].
        least: users that a pair must have in common; other pairs have no entry.
    """
    users = seen.sum(axis=0).astype(np.float64)  # of each item
    for first, counts in common(sp.csr_array(seen.T), least):
        squares = counts.data.astype(np.float64) ** 2
        counts.data = squares / (users[rows(counts) + first] * users[counts.indices])
        yield first, counts


def largest(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Return the matrix with each row's K largest entries only, equal ones by ascending column; indices are sorted."""
    columns, values, lengths = [], [], []
    for start, end in pairwise(matrix.indptr):  # rows differ in length; one sort of all is slower
        ids, near = matrix.indices[start:end], matrix.data[start:end]
        if len(ids) > k:
            edge = np.partition(near, -k)[-k]
            above = np.flatnonzero(near > edge)
            kept = np.sort(np.concatenate([above, np.flatnonzero(near == edge)[: k - len(above)]]))
            ids, near = ids[kept], near[kept]
        columns.append(ids)
        values.append(near)
        lengths.append(len(ids))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=matrix.shape)


def rows(matrix: sp.csr_array) -> np.ndarray:
    """Return each entry's row."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
