"""Rows nearest to a few queries by cosine, in NumPy: a light install lacks FAISS.

I rows, n queries, K neighbours, F width.
"""

import numpy as np

STEPS_PER_COSINE = 1e6  # cosines that are rounded to the same step are tied


def find_nearest(
    queries: np.ndarray, units: np.ndarray, k: int, left_out: np.ndarray | None = None
) -> np.ndarray:
    """Return the K nearest rows, best first, int64 [n, K], ties by row, of units, float32 [I, F].

    Queries have length 1, float32 [n, F]; `left_out`, int [n], is a row that comes last for its
    query, such as itself.
    """
    # an integer key orders by cosine, then by row, so that ties are broken the same way on every
    # machine
    steps = np.rint((queries @ units.T) * STEPS_PER_COSINE).astype(np.int64)
    keys = np.arange(len(units)) - steps * len(units)
    if left_out is not None:
        keys[np.arange(len(queries)), left_out] = np.iinfo(np.int64).max

    k = min(k, len(units))
    nearest = np.argpartition(keys, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(keys, nearest, 1), axis=1)
    rows: np.ndarray = np.take_along_axis(nearest, order, 1)
    return rows
