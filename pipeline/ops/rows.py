"""L2 normalisation of rows."""

import numpy as np


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
