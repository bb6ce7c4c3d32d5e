"""Whitening (as in BERT-whitening, arXiv 2103.15316). n vectors, D width, W width after PCA."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline.ops.linalg import orient_columns

# share of the mean variance added to every variance, so that directions of low variance are not amplified
FLOOR = 1e-3
ROWS = 8192  # vectors per block; bounds memory


# CLS vectors share a large mean and vary mostly along a few directions, which would dominate every cosine.
class Whitening(NamedTuple):
    """The affine map `(x - mean) @ map`."""

    mean: np.ndarray  # float32 [D]
    # float32 [D, D], symmetric (ZCA), hence independent of the signs of eigenvectors; [D, W] from `fit_pca`
    map: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return float32 [B, D], or [B, W] after `fit_pca`."""
        return (x - self.mean) @ self.map


def fit_whitening(x: np.ndarray) -> Whitening:
    """Fit to vectors [n, D]; vectors without variance are only centred."""
    mean = x.sum(axis=0, dtype=np.float64) / max(1, len(x))
    centred = x - mean
    variance, directions = np.linalg.eigh(centred.T @ centred / max(1, len(x)))
    variance = np.maximum(variance, 0) + FLOOR * variance.mean()
    scale = 1 / np.sqrt(variance) if variance.mean() > 0 else np.ones_like(variance)
    return Whitening(mean.astype(np.float32), ((directions * scale) @ directions.T).astype(np.float32))


def fit_pca(blocks: Callable[[], Iterable[np.ndarray]], width: int, power: float = 1) -> Whitening:
    """Fit PCA, scaled by sd^-power, to the non-zero vectors in `blocks`, float32 [b, D] each, which are read twice."""
    from scipy import linalg  # takes 0.3 s to import, and is only needed to fit

    with threadpool_limits(1):  # the order of sums decides the last bits
        mean, covariance = _mean_and_covariance(blocks)
        last = len(mean) - 1
        largest = [max(0, last + 1 - width), last]
        variance, directions = linalg.eigh(covariance, subset_by_index=largest)
    variance, directions = variance[::-1], directions[:, ::-1]
    # drop variance that float32 cannot distinguish from zero at the vectors' scale
    varied = variance > np.finfo(np.float32).eps ** 2 * (mean @ mean + np.trace(covariance))
    if not varied.any():  # W is 1, with a map of zeros
        return Whitening(mean.astype(np.float32), np.zeros((len(mean), 1), np.float32))
    # W is at most `width`, or the rank of the vectors
    variance, directions = variance[varied], orient_columns(directions[:, varied])
    scale = (1 / np.sqrt(variance + FLOOR * variance.mean())) ** power
    return Whitening(mean.astype(np.float32), (directions * scale).astype(np.float32))


def apply_whitening(whitening: Whitening, x: np.ndarray) -> np.ndarray:
    """Apply a fitted PCA: [n, D] -> float32 [n, W]; rows of zeros stay zero."""
    with threadpool_limits(1):
        return np.where(x.any(axis=1, keepdims=True), whitening(x), np.float32(0))


def whiten_rows(x: np.ndarray, width: int, power: float = 1) -> np.ndarray:
    """Fit `fit_pca` to vectors and apply it: float32 [n, D] -> [n, W]."""
    return apply_whitening(
        fit_pca(lambda: (x[start : start + ROWS] for start in range(0, len(x), ROWS)), width, power), x
    )


def _mean_and_covariance(blocks: Callable[[], Iterable[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [D] and covariance [D, D] of the non-zero rows, float64."""
    n, total = 0, np.float64(0)
    for x in blocks():
        n, total = n + int(x.any(axis=1).sum()), total + x.sum(axis=0, dtype=np.float64)
    mean = np.asarray(total / max(1, n))
    covariance = np.zeros((len(mean), len(mean)))
    for x in blocks():  # second pass: the mean may be large compared with the variance
        centred = x[x.any(axis=1)] - mean
        covariance += centred.T @ centred / max(1, n)
    return mean, covariance
