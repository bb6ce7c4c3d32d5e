"""Co-occurrence of items or users.

U users, I items, N nodes (either), B nodes per block, K entries kept.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

NODES_PER_BLOCK = 256  # counts may be dense, so this bounds memory


def user_item_matrix(user: np.ndarray, item: np.ndarray, n_items: int) -> sp.csr_array:
    """Return the binary interaction matrix R, float32 [U, I]."""
    shape = (int(user.max(initial=-1)) + 1, n_items)
    ones = np.ones(len(user), np.float32)
    matrix = sp.csr_array((ones, (user, item)), shape=shape)
    matrix.data[:] = 1  # of repeated pairs, it has the sum
    return matrix


def count_cooccurrences(
    sets: sp.csr_array,
    nodes: np.ndarray | None = None,
    nodes_per_block: int = NODES_PER_BLOCK,
) -> Iterator[tuple[np.ndarray, sp.csr_array]]:
    """Yield blocks of nodes, and how many members their sets (rows of `sets`) share, [B, N]."""
    by_member = sp.csr_array(sets.T)
    if nodes is None:
        nodes = np.arange(sets.shape[0])
    for block in np.split(nodes, range(nodes_per_block, len(nodes), nodes_per_block)):
        counts = sp.csr_array(sets[block] @ by_member)
        counts.sort_indices()

        is_other = counts.indices != block[row_numbers(counts)]
        starts = np.r_[0, np.cumsum(is_other)][counts.indptr]
        entries = (counts.data[is_other], counts.indices[is_other], starts)
        yield block, sp.csr_array(entries, shape=counts.shape)


def squared_cosines(
    matrix: sp.csr_array,
    items: np.ndarray | None = None,
    items_per_block: int = NODES_PER_BLOCK,
) -> Iterator[tuple[np.ndarray, sp.csr_array]]:
    """Yield blocks of items and their squared item-CF cosines, |U_i & U_j|^2 / (|U_i| |U_j|), with
    others, [B, I].
    """
    users = matrix.sum(axis=0).astype(np.float64)  # users of each item
    for block, counts in count_cooccurrences(sp.csr_array(matrix.T), items, items_per_block):
        # squares are quotients of integers, so equal scores are equal floats and ties can be broken
        # by id
        squares = counts.data.astype(np.float64) ** 2
        products = users[block[row_numbers(counts)]] * users[counts.indices]
        counts.data = squares / products
        yield block, counts


def top_k(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Keep the K largest entries of each row, ties by lowest column; indices are sorted."""
    columns = []
    values = []
    lengths = []
    for start, end in pairwise(matrix.indptr):  # row by row: one sort of all entries is slower
        row_columns = matrix.indices[start:end]
        row_values = matrix.data[start:end]
        if len(row_columns) > k:
            largest = _largest_positions(row_values, k)
            row_columns = row_columns[largest]
            row_values = row_values[largest]
        columns.append(row_columns)
        values.append(row_values)
        lengths.append(len(row_columns))

    starts = np.concatenate([[0], np.cumsum(lengths)])
    entries = (np.concatenate(values), np.concatenate(columns), starts)
    return sp.csr_array(entries, shape=matrix.shape)


def _largest_positions(values: np.ndarray, k: int) -> np.ndarray:
    """Return the ascending positions of the K largest values, ties by lowest position."""
    threshold = np.partition(values, -k)[-k]
    above = np.flatnonzero(values > threshold)
    ties = np.flatnonzero(values == threshold)
    return np.sort(np.concatenate([above, ties[: k - len(above)]]))


def row_numbers(matrix: sp.csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
