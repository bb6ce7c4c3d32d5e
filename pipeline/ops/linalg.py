"""Row normalisation, and singular vectors that are reproducible to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from scipy import sparse

BLOCK = 1 << 16  # rows checked at a time; bounds memory


def unit_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows [N, D] scaled to length 1, float32, and which have a finite length > 0, bool [N]; others are zero."""
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(x, axis=1)
    directed = np.isfinite(length) & (length > 0)
    units = np.zeros(x.shape, np.float32)
    np.divide(x, length[:, None], out=units, where=directed[:, None])
    return units, directed


def float64_units(x: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """Normalise rows of x [N, D] like `unit_rows`, as float64 [n, D], for comparing cosines."""
    return unit_rows(x[rows])[0].astype(np.float64)


def first_not_finite(x: np.ndarray) -> int | None:
    for start in range(0, len(x), BLOCK):
        if len(wrong := np.flatnonzero(~np.isfinite(x[start : start + BLOCK]).all(axis=1))):
            return start + int(wrong[0])
    return None


def orient_columns(directions: np.ndarray) -> np.ndarray:
    """Flip the signs of columns [D, W] so that the largest entry of each is positive."""
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[largest, np.arange(directions.shape[1])])


def right_vectors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` right singular vectors of float64 [n, m], largest first: float64 [m, W]."""
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    with threadpool_limits(1):  # the order of sums decides the last bits
        if width < min(matrix.shape):
            _, singular, right = svds(matrix, width, v0=start)
        else:  # ARPACK cannot find all of them
            _, singular, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-singular, kind="stable")
    order = order[singular[order] > np.finfo(np.float32).eps * singular.max()]
    return orient_columns(right[order].T)
