"""Which items a training is measured on, and not shown."""

import numpy as np


def split(usable: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return train items and held-out items, both int64, sorted."""
    order = np.random.default_rng(seed).permutation(usable)
    n = round(share * len(order))
    return np.sort(order[n:]), np.sort(order[:n])
