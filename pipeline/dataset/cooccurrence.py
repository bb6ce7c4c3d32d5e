"""Co-occurrence of items or users. U users, I items, N nodes (either), B nodes per block, K entries kept."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

BLOCK = 256  # nodes per block: counts may be dense, so this bounds memory


def user_item_matrix(user: np.ndarray, item: np.ndarray, n_items: int) -> sp.csr_array:
    """Return the binary interaction matrix R, float32 [U, I]."""
    shape = (int(user.max(initial=-1)) + 1, n_items)
    matrix = sp.csr_array((np.ones(len(user), np.float32), (user, item)), shape=shape)
    matrix.data[:] = 1
    return matrix


def count_cooccurrences(
    sets: sp.csr_array, nodes: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, sp.csr_array]]:
    """Yield blocks of nodes and how many members each node's set (its row of `sets`) shares with the others, [B, N]."""
    by_member = sp.csr_array(sets.T)
    nodes = np.arange(sets.shape[0]) if nodes is None else nodes
    for block in np.split(nodes, range(BLOCK, len(nodes), BLOCK)):
        counts = sp.csr_array(sets[block] @ by_member)
        counts.sort_indices()
        kept = counts.indices != block[row_numbers(counts)]
        starts = np.r_[0, np.cumsum(kept)][counts.indptr]
        yield (
            block,
            sp.csr_array((counts.data[kept], counts.indices[kept], starts), shape=counts.shape),
        )


def squared_cosines(
    matrix: sp.csr_array, items: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, sp.csr_array]]:
    """Yield blocks of items and their squared item-CF cosines, |U_i & U_j|^2 / (|U_i| |U_j|), with others, [B, I]."""
    users = matrix.sum(axis=0).astype(np.float64)  # users of each item
    for block, counts in count_cooccurrences(sp.csr_array(matrix.T), items):
        # squares are quotients of integers, so equal scores are equal floats and ties can be broken by id
        squares = counts.data.astype(np.float64) ** 2
        counts.data = squares / (users[block[row_numbers(counts)]] * users[counts.indices])
        yield block, counts


def top_k(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Keep the K largest entries of each row, ties by lowest column; indices are sorted."""
    columns, values, lengths = [], [], []
    for start, end in pairwise(matrix.indptr):  # row by row: one sort of all entries is slower
        ids, scores = matrix.indices[start:end], matrix.data[start:end]
        if len(ids) > k:
            threshold = np.partition(scores, -k)[-k]
            above = np.flatnonzero(scores > threshold)
            kept = np.sort(
                np.concatenate([above, np.flatnonzero(scores == threshold)[: k - len(above)]])
            )
            ids, scores = ids[kept], scores[kept]
        columns.append(ids)
        values.append(scores)
        lengths.append(len(ids))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array(
        (np.concatenate(values), np.concatenate(columns), starts), shape=matrix.shape
    )


def row_numbers(matrix: sp.csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
