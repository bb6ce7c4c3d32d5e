"""Whitening: vectors centred and scaled so that every direction has the same variance over the items.

CLS vectors share a large mean and vary most along a few directions, which then decide every cosine; after whitening
fine differences count as much as coarse ones (as in BERT-whitening, arXiv 2103.15316).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FLOOR = 1e-3
"""added to every variance, as a share of the mean variance: directions of little variance are not amplified"""


class Whitening(NamedTuple):
    """`(x - mean) @ map`."""

    mean: np.ndarray
    """float32 [D]"""
    map: np.ndarray
    """float32 [D, D], symmetric, so that it does not depend on the signs of eigenvectors"""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return float32 [B, D]."""
        return (x - self.mean) @ self.map


def fit(x: np.ndarray) -> Whitening:
    """Fit to vectors [n, D]; vectors without variance are only centred, and no vectors give the identity."""
    mean = x.sum(axis=0, dtype=np.float64) / max(1, len(x))
    centred = x - mean
    variance, directions = np.linalg.eigh(centred.T @ centred / max(1, len(x)))
    variance = np.maximum(variance, 0) + FLOOR * variance.mean()
    scale = 1 / np.sqrt(variance) if variance.mean() > 0 else np.ones_like(variance)
    return Whitening(mean.astype(np.float32), ((directions * scale) @ directions.T).astype(np.float32))
