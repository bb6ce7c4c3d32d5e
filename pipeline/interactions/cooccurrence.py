"""Co-occurrence of items and of users; item-CF's score is the cosine `|U_i & U_j| / sqrt(|U_i| |U_j|)`.

Scores are compared by their square, a quotient of two whole numbers, so that equal scores are equal floats. Of equal
scores the lower id comes first.

Letters: U users, I items, N nodes (either), B nodes of a block, K kept.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

BLOCK = 256
"""nodes a block: their counts with all others may be dense, so a block bounds memory"""


def user_item_matrix(user: np.ndarray, item: np.ndarray, n_items: int) -> sp.csr_array:
    """Return R, float32 [U, I], of user and item of n interactions: 1 where a user has an item, however often."""
    shape = (int(user.max(initial=-1)) + 1, n_items)
    matrix = sp.csr_array((np.ones(len(user), np.float32), (user, item)), shape=shape)
    matrix.data[:] = 1
    return matrix


def cooccurrences(sets: sp.csr_array, least: int = 1) -> Iterator[tuple[int, sp.csr_array]]:
    """Yield the first node of a block, and the size of its nodes' intersections with every other node, [B, N].

    `sets` is [N, n], 1 where a node's set has a member; intersections smaller than `least` have no entry.
    """
    by_member = sp.csr_array(sets.T)
    for first in range(0, sets.shape[0], BLOCK):
        counts = sp.csr_array(sets[first : first + BLOCK] @ by_member)
        counts.sort_indices()
        kept = (counts.indices != rows(counts) + first) & (counts.data >= least)
        starts = np.r_[0, np.cumsum(kept)][counts.indptr]
        yield first, sp.csr_array((counts.data[kept], counts.indices[kept], starts), shape=counts.shape)


def squared_cosines(matrix: sp.csr_array) -> Iterator[tuple[int, sp.csr_array]]:
    """Yield the first item of a block, and its items' squared cosines with all others, float64 [B, I]; of R, [U, I]."""
    users = matrix.sum(axis=0).astype(np.float64)  # of each item
    for first, counts in cooccurrences(sp.csr_array(matrix.T)):
        squares = counts.data.astype(np.float64) ** 2
        counts.data = squares / (users[rows(counts) + first] * users[counts.indices])
        yield first, counts


def top_k(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Return the K largest entries of each row, of equal ones those in the lowest columns; indices are sorted."""
    columns, values, lengths = [], [], []
    for start, end in pairwise(matrix.indptr):  # rows differ in length; one sort of all is slower
        ids, scores = matrix.indices[start:end], matrix.data[start:end]
        if len(ids) > k:
            threshold = np.partition(scores, -k)[-k]
            above = np.flatnonzero(scores > threshold)
            kept = np.sort(np.concatenate([above, np.flatnonzero(scores == threshold)[: k - len(above)]]))
            ids, scores = ids[kept], scores[kept]
        columns.append(ids)
        values.append(scores)
        lengths.append(len(ids))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=matrix.shape)


def rows(matrix: sp.csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
