"""Factors of items by the users that they share. U users, I items, W width."""

import numpy as np
from scipy import sparse

from alignrec.pipeline.linalg.projections import right_vectors


def collaborative_factors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` factors of the items of `matrix`, float32 [U, I], as float64 [I, W].

    They are right singular vectors of the matrix, with rows and columns divided by the roots of
    their counts; zero for items without users.
    """
    counts = matrix.astype(np.float64)
    users, items = counts.sum(axis=1), counts.sum(axis=0)
    by_user = sparse.diags_array(1 / np.sqrt(np.maximum(1, users)))
    by_item = sparse.diags_array(1 / np.sqrt(np.maximum(1, items)))
    scaled = (by_user @ counts @ by_item).tocsr()

    vectors = right_vectors(sparse.csr_array(scaled[:, items > 0]), width, seed)
    factors = np.zeros((len(items), vectors.shape[1]))
    factors[items > 0] = vectors * np.sqrt(len(vectors))
    return factors
