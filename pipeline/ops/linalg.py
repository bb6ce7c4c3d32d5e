"""Linear algebra with the same last bits on every run: several threads would add up in another order."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from scipy import sparse


def limited(number: int, user_api: str | None = None) -> AbstractContextManager[object]:
    """Do as `threadpool_limits`, which looks through all loaded libraries each time, in 3 ms; here after an import."""
    return _pools(len(sys.modules)).limit(limits=number, user_api=user_api)


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    return ThreadpoolController()


def orient(directions: np.ndarray) -> np.ndarray:
    """Return columns [D, W] with signs such that the largest entry of each is positive."""
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[largest, np.arange(directions.shape[1])])


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
