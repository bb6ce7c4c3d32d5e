"""L2 normalisation of rows."""

import numpy as np

BLOCK = 1 << 16
"""rows checked at a time, which bounds memory"""


def unit_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows [N, D] scaled to length 1, float32, and which have a direction, bool [N]; the others become zero.

    A row has none if it is zero, holds a value that is not finite, or is too long for float32.
    """
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(x, axis=1)
    directed = np.isfinite(length) & (length > 0)
    units = np.zeros(x.shape, np.float32)
    np.divide(x, length[:, None], out=units, where=directed[:, None])
    return units, directed


def float64_units(x: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """Return some rows of x [N, D] as `unit_rows` does, float64 [n, D]: what cosines are compared in."""
    return unit_rows(x[rows])[0].astype(np.float64)


def first_not_finite(x: np.ndarray) -> int | None:
    """Return the first row of x [N, D] with a value that is not finite."""
    for start in range(0, len(x), BLOCK):
        if len(wrong := np.flatnonzero(~np.isfinite(x[start : start + BLOCK]).all(axis=1))):
            return start + int(wrong[0])
    return None
