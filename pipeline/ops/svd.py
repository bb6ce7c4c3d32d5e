"""Truncated singular value decomposition of a sparse matrix, the same on every run."""

import numpy as np
from scipy import sparse

from pipeline.ops.threads import limited
from pipeline.ops.whitening import orient


def right_vectors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return the right singular vectors of the largest singular values, largest first: float64 [m, W].

    `matrix` is float64 [n, m]; W is `width` at most, without singular values that are zero up to rounding. One thread,
    as the order of sums decides the last bits. Memory grows with (n + m) W.
    """
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    with limited(1):
        if width < min(matrix.shape):
            _, singular, right = svds(matrix, width, v0=start)
        else:  # ARPACK does not find all
            _, singular, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-singular, kind="stable")
    order = order[singular[order] > np.finfo(np.float32).eps * singular.max()]
    return orient(right[order].T)
