"""Held-out items, on which a training is measured."""

import numpy as np

MOST = 2000  # items that a training is measured on, at most: more cost time at each measurement, and change little


def split(usable: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return train items and held-out items, a share of all or MOST, both int64, sorted."""
    order = np.random.default_rng(seed).permutation(usable)
    n = min(round(share * len(order)), MOST)
    return np.sort(order[n:]), np.sort(order[:n])
