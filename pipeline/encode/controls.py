"""Feature sets that a useful one must beat: random, shuffled, constant.

Letters: I items, F width.
"""

from __future__ import annotations

import numpy as np


def random(items: int, width: int, seed: int) -> np.ndarray:
    """Return independent N(0, 1), float32 [I, F]."""
    return np.random.default_rng(seed).standard_normal((items, width), dtype=np.float32)


def shuffled(items: int, seed: int) -> np.ndarray:
    """Return the item whose vector each item takes, int64 [I]: one random cycle, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(items)
    source = np.empty(items, np.int64)
    source[order] = np.roll(order, 1)
    return source


def constant(items: int, width: int) -> np.ndarray:
    """Return ones, float32 [I, F]."""
    return np.ones((items, width), np.float32)
