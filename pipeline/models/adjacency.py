"""Normalised adjacency matrices: user-item and item-item. U users, I items."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from alignrec.pipeline.dataset.split import Split


def item_graph(edges: pa.Table, n_items: int) -> sp.csr_array:
    """Return S = D^-1/2 W D^-1/2, float32 [I, I] (method.md section 3).

    W has the cosines of neighbours, and D is its row sums. Rows that sum to <= 0 become empty.
    """
    ends = edges["item_id"].to_numpy(), edges["neighbour_id"].to_numpy()
    cosines = edges["cosine"].to_numpy()
    weights = sp.csr_array((cosines, ends), shape=(n_items, n_items))
    scale = sp.diags_array(_inverse_root(weights.sum(axis=1)))
    return sp.csr_array(scale @ weights @ scale)


def interaction_matrix(split: Split) -> sp.csr_array:
    """Return R, float32 [U, I], 1 for every train pair."""
    train = split.train
    ones = np.ones(len(train), np.float32)
    shape = split.n_users, split.n_items
    return sp.csr_array((ones, (train.users, train.items)), shape=shape)


def normalise_by_degrees(matrix: sp.csr_array) -> sp.csr_array:
    """Return D_row^-1/2 M D_column^-1/2, D the row and column sums."""
    row_scale = sp.diags_array(_inverse_root(matrix.sum(axis=1)))
    column_scale = sp.diags_array(_inverse_root(matrix.sum(axis=0)))
    return sp.csr_array(row_scale @ matrix @ column_scale)


def normalise_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Return D_row^-1 M, which averages over the entries of each row."""
    root = _inverse_root(matrix.sum(axis=1))
    return sp.csr_array(sp.diags_array(root**2) @ matrix)


def _inverse_root(sums: np.ndarray) -> np.ndarray:
    root = np.zeros(len(sums), np.float32)
    is_positive = sums > 0
    root[is_positive] = 1 / np.sqrt(sums[is_positive])
    return root
