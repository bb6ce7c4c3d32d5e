"""Maps of the summaries of BEiT3 `mini`, whose halves are text and image; an absent half is zero.

Letters: B or n summaries, D width of a half, W width of the teachers' vector.
"""

import numpy as np
import torch
from scipy.linalg import block_diag, solve
from torch import Tensor

from alignrec.pipeline.linalg.projections import (
    IMAGE_WEIGHT,
    JOINT_POWER,
    JOINT_WIDTH,
    Whitening,
    fit_pca,
)

RIDGE_SHARE = 0.05  # ridge added to every variance of summaries, as a share of the mean variance


def centre_halves(x: Tensor, mean: Tensor) -> Tensor:
    """Centre the halves of summaries, float32 [B, 2 D]; an absent half stays zero."""
    halves = []
    for half, half_mean in zip(x.chunk(2, 1), mean.chunk(2), strict=True):
        is_present = half.any(1, keepdim=True)
        halves.append((half - half_mean) * is_present)
    return torch.cat(halves, 1)


def _centre_array(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return centre_halves(torch.from_numpy(x), torch.from_numpy(mean)).numpy()


def half_means(x: np.ndarray) -> np.ndarray:
    """Average each half over the rows where it is present: float32 [n, 2 D] -> [2 D]."""
    halves = np.split(x, 2, axis=1)
    means = [half.sum(axis=0, dtype=np.float64) / _count_present(half) for half in halves]
    return np.concatenate(means).astype(np.float32)


def _count_present(half: np.ndarray) -> int:
    return max(1, half.any(axis=1).sum())


def fit_halves(x: np.ndarray) -> Whitening:
    """Fit PCA to each half, float32 [n, D], and to both joined, as in feature set `linear`."""
    text, image = np.split(x, 2, axis=1)
    halves_map = block_diag(_fit_half(text, 1.0), _fit_half(image, IMAGE_WEIGHT)).astype(np.float32)

    mean = half_means(x)
    joined = _centre_array(x, mean) @ halves_map
    pca = fit_pca(lambda: [joined], JOINT_WIDTH, power=0)
    return Whitening(mean, halves_map @ pca.map)


def _fit_half(half: np.ndarray, weight: float) -> np.ndarray:
    """Return a map to principal components whose root mean square length is `weight`."""
    pca = fit_pca(lambda: [half], JOINT_WIDTH, JOINT_POWER)
    squares = np.square(pca.apply(half)).sum()
    length = np.sqrt(squares / _count_present(half))
    return pca.map * np.float32(weight / length if length else 0)


def fit_ridge(x: np.ndarray, target: np.ndarray) -> Whitening:
    """Regress teachers' vectors, float32 [n, W], zero if unknown, on summaries, [n, 2 D]."""
    mean = half_means(x)
    has_target = target.any(axis=1)
    centred = _centre_array(x, mean)[has_target].astype(np.float64)

    gram = centred.T @ centred
    gram += RIDGE_SHARE * np.trace(gram) / len(gram) * np.eye(len(gram))
    moments = centred.T @ target[has_target]
    weight = solve(gram, moments, assume_a="pos").astype(np.float32)  # [2 D, W]
    return Whitening(mean, weight)
