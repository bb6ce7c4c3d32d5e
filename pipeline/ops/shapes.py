"""Spectrum, effective rank and similarity of vectors, without an I x I matrix. I items, F and G widths."""

from typing import NamedTuple

import numpy as np

from alignrec.pipeline.ops.linalg import unit_rows


class Shape(NamedTuple):
    """Geometry of one feature set."""

    width: int
    # exp of the entropy of the normalised singular values after centring (Roy and Vetterli 2007), 1 .. F
    effective_rank: float
    mean_cosine: float  # over pairs of distinct items; 0 if isotropic, 1 if all are parallel
    zero_rows: int  # items whose vector is zero or not finite


def spectrum(features: np.ndarray) -> np.ndarray:
    """Return the squared singular values of centred features [I, F]: float64 [F], ascending."""
    centred = features - features.mean(axis=0)
    return np.clip(np.linalg.eigvalsh(_cross_product(centred, centred)), 0, None)


def measure_shape(features: np.ndarray, spectrum: np.ndarray) -> Shape:
    unit, directed = unit_rows(features)
    pointing, total = directed.sum(), unit.astype(np.float64).sum(axis=0)
    mean = (total @ total - pointing) / max(pointing * (pointing - 1), 1)
    singular = np.sqrt(spectrum)
    share = singular[singular > 1e-6 * max(singular.max(initial=0), 1e-30)]
    share = share / share.sum() if len(share) and singular.max() > 0 else np.ones(1)
    rank = float(np.exp(-(share * np.log(share)).sum()))
    return Shape(features.shape[1], rank, float(mean), len(features) - int(pointing))


def linear_cka(a: np.ndarray, b: np.ndarray, spectrum_a: np.ndarray, spectrum_b: np.ndarray) -> float:
    """Return linear CKA of [I, F] and [I, G]: ||B^T A||_F^2 / (||A^T A||_F ||B^T B||_F) (Kornblith et al. 2019)."""
    scale = np.linalg.norm(spectrum_a) * np.linalg.norm(spectrum_b)
    return float((_cross_product(a - a.mean(axis=0), b - b.mean(axis=0)) ** 2).sum() / scale) if scale > 0 else 0.0


def leading_share(features: np.ndarray) -> float:
    """Return the share of energy in the leading direction of uncentred features [I, F], 1 / F .. 1."""
    energy = np.clip(np.linalg.eigvalsh(_cross_product(features, features)), 0, None)
    return float(energy[-1] / energy.sum()) if energy.sum() > 0 else 1.0


def _cross_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # float64: rounding in single precision would add to the effective rank
    total = np.zeros((a.shape[1], b.shape[1]))
    for at in range(0, len(a), 8192):
        rows = a[at : at + 8192].astype(np.float64)
        total += rows.T @ (rows if b is a else b[at : at + 8192].astype(np.float64))  # BLAS halves the work of x.T @ x
    return total
