"""Normalised adjacency matrices: user-item and item-item. U users, I items."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from alignrec.pipeline.dataset.split import Split


def item_graph(edges: pa.Table, n_items: int) -> sp.csr_array:
    """Return S = D^-1/2 W D^-1/2, float32 [I, I], W the cosines of neighbours, D its row sums (method.md section 3).

    Rows that sum to <= 0 become empty.
    """
    ends = edges["item_id"].to_numpy(), edges["neighbour_id"].to_numpy()
    weights = sp.csr_array((edges["cosine"].to_numpy(), ends), shape=(n_items, n_items))
    scale = sp.diags_array(_inverse_root(weights.sum(axis=1)))
    return sp.csr_array(scale @ weights @ scale)


def interaction_matrix(split: Split) -> sp.csr_array:
    """Return R, float32 [U, I], 1 for every train pair."""
    ones = np.ones(len(split.train), np.float32)
    return sp.csr_array(
        (ones, (split.train.users, split.train.items)), shape=(split.n_users, split.n_items)
    )


def normalise_by_degrees(matrix: sp.csr_array) -> sp.csr_array:
    """Return D_row^-1/2 M D_column^-1/2, D the row and column sums."""
    by_row, by_column = _inverse_root(matrix.sum(axis=1)), _inverse_root(matrix.sum(axis=0))
    return sp.csr_array(sp.diags_array(by_row) @ matrix @ sp.diags_array(by_column))


def normalise_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Return D_row^-1 M, which averages over the entries of each row."""
    return sp.csr_array(sp.diags_array(_inverse_root(matrix.sum(axis=1)) ** 2) @ matrix)


def _inverse_root(sums: np.ndarray) -> np.ndarray:
    root = np.zeros(len(sums), np.float32)
    root[sums > 0] = 1 / np.sqrt(sums[sums > 0])
    return root
