"""Orthogonal Procrustes: the rotation that brings one set of vectors nearest to another.

n vectors, F and G widths of the two sets, W the larger of both.
"""

from collections.abc import Iterable

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline.linalg.projections import unit_rows

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]  # float32 [n, F] and [n, G] of the same items


def fit_rotation(pairs: Pairs, width: int, target_width: int) -> np.ndarray:
    """Return the map float32 [F, W] that maximises the mean cosine of `x @ map` and the target.

    The narrower side is padded with zeros. The rows of the map are orthonormal, so dot products
    and cosines of mapped vectors stay as they are (Schoenemann 1966, doi 10.1007/BF02289451).

    Args:
        pairs: vectors [n, F] and their targets [n, G], in blocks; rows of zeros are ignored.
        width: F.
        target_width: G.
    """
    correlation = np.zeros((width, target_width))
    with threadpool_limits(1):  # the order of sums decides the last bits
        for x, target in pairs:
            units = unit_rows(x)[0].astype(np.float64)
            correlation += units.T @ unit_rows(target)[0].astype(np.float64)
        left, _, right = np.linalg.svd(correlation, full_matrices=True)  # [F, F] and [G, G]

    if width <= target_width:
        rotation = left @ right[:width]
    else:  # the directions that the target lacks follow, in an arbitrary order
        rotation = np.hstack([left[:, :target_width] @ right, left[:, target_width:]])
    return rotation.astype(np.float32)


def rotate(x: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Map vectors, float32 [n, F], to float32 [n, W]."""
    with threadpool_limits(1):  # the order of sums decides the last bits
        return np.ascontiguousarray(x @ rotation, np.float32)


def paired_cosines(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the cosine of each vector [n, F] and its target [n, G], float64 [n].

    The narrower side is padded with zeros. Two rows of zeros have cosine 1, one alone 0.
    """
    units, directed = unit_rows(x)
    target_units, target_directed = unit_rows(target)
    width = min(x.shape[1], target.shape[1])
    shared = units[:, :width], target_units[:, :width]
    cosines = np.einsum("nf,nf->n", *shared, dtype=np.float64)
    cosines[~directed & ~target_directed] = 1
    return cosines
