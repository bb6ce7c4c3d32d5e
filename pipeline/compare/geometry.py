"""Geometry of feature sets, and similarity of two. No I x I matrix is held.

I items, R of them whose neighbours are searched, F and G feature widths, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline import engine
from pipeline.ops.rows import unit_rows


class Shape(NamedTuple):
    """The geometry of one feature set."""

    width: int
    effective_rank: float
    """exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli 2007), 1 .. F"""
    mean_cosine: float
    """over all pairs of different items; 0 for isotropic features, 1 for equal directions"""
    zero_rows: int
    """items without a direction"""


def spectrum(features: np.ndarray) -> np.ndarray:
    """Return the squared singular values of centred features [I, F], float64 [F], ascending, from an F x F matrix."""
    centred = features - features.mean(axis=0)
    return np.clip(np.linalg.eigvalsh(_product(centred, centred)), 0, None)


def shape(features: np.ndarray, spectrum: np.ndarray) -> Shape:
    """Return the shape of float32 [I, F] with its `spectrum`."""
    unit, directed = unit_rows(features)
    pointing, total = directed.sum(), unit.astype(np.float64).sum(axis=0)
    mean = (total @ total - pointing) / max(pointing * (pointing - 1), 1)
    singular = np.sqrt(spectrum)
    share = singular[singular > 1e-6 * max(singular.max(initial=0), 1e-30)]
    share = share / share.sum() if len(share) and singular.max() > 0 else np.ones(1)
    rank = float(np.exp(-(share * np.log(share)).sum()))
    return Shape(features.shape[1], rank, float(mean), len(features) - int(pointing))


def linear_cka(a: np.ndarray, b: np.ndarray, spectrum_a: np.ndarray, spectrum_b: np.ndarray) -> float:
    """Return linear CKA, ||B^T A||_F^2 / (||A^T A||_F ||B^T B||_F) of centred A, B (Kornblith et al. 2019), 0 .. 1.

    Args:
        a: float32 [I, F], centred here.
        b: float32 [I, G].
        spectrum_a: see `spectrum`; its length is ||A^T A||_F.
        spectrum_b: of b.
    """
    scale = np.linalg.norm(spectrum_a) * np.linalg.norm(spectrum_b)
    return float((_product(a - a.mean(axis=0), b - b.mean(axis=0)) ** 2).sum() / scale) if scale > 0 else 0.0


def neighbours(features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24) -> np.ndarray:
    """Return the K nearest others of items by cosine, int32 [R, K], ascending; equal to 1e-6 they tie, lower ids win.

    Args:
        features: float32 [I, F].
        k: less than I.
        rows: int [R], the items whose neighbours are searched; all by default.
        scores_held: scores held, which bounds memory.
    """
    unit, n = unit_rows(features)[0], len(features)
    rows = np.arange(n) if rows is None else rows
    block = max(1, scores_held // engine.CORES // n)

    def of_block(at: int) -> np.ndarray:
        own = rows[at : at + block]
        # one whole number orders by score, then by id: partitioning it breaks ties the same way everywhere
        key = -np.rint((unit[own] @ unit.T) * 1e6).astype(np.int64) * n + np.arange(n)
        key[np.arange(len(own)), own] = np.iinfo(np.int64).max
        return np.sort(np.argpartition(key, k - 1, axis=1)[:, :k], axis=1).astype(np.int32)

    return np.concatenate(list(engine.threads(of_block, range(0, len(rows), block))))


def nearest(features: np.ndarray, items: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return item -> its K nearest others, best first, of a few items; ties as in `neighbours`."""
    unit = unit_rows(features)[0]
    neighbours = {}
    for item in items:  # a few
        scores = np.rint((unit @ unit[item]) * 1e6)
        scores[item] = -np.inf
        neighbours[int(item)] = np.argsort(-scores, kind="stable")[:k].tolist()
    return neighbours


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of neighbours that two sets share, float64 [R].

    Args:
        a: int [R, K], see `neighbours`.
        b: int [R, K], of the same items.
    """
    n, k = a.shape
    offset = np.arange(n, dtype=np.int64)[:, None] * (int(max(a.max(), b.max())) + 1)
    return np.isin(a + offset, b + offset).sum(axis=1) / k


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a.T @ b, float64 [F, G], a block of rows at a time.

    In double precision: rounding in single precision would add to the effective rank.
    """
    total = np.zeros((a.shape[1], b.shape[1]))
    for at in range(0, len(a), 8192):
        rows = a[at : at + 8192].astype(np.float64)
        total += rows.T @ (rows if b is a else b[at : at + 8192].astype(np.float64))  # of one array BLAS needs half
    return total
