"""Maps of the summaries of `mini`, whose halves, of text and image, are centred separately.

Letters: n items, D width of a half, W of the output.
"""

import numpy as np
import torch
from scipy.linalg import block_diag, solve
from torch import Tensor

from pipeline.ops.joining import IMAGE, POWER, WIDTH
from pipeline.ops.whitening import Whitening, applied, fit_pca

RIDGE = 0.05  # added to every variance, as a share of the mean variance


def centre(x: Tensor, mean: Tensor) -> Tensor:
    """Subtract a mean from summaries, float32 [B, 2 D]; an absent half stays zero."""
    halves = [(half - m) * half.any(1, keepdim=True) for half, m in zip(x.chunk(2, 1), mean.chunk(2), strict=True)]
    return torch.cat(halves, 1)


def halves(x: np.ndarray) -> Whitening:
    """Fit a map of summaries, float32 [n, 2 D], with a weight for images, as in `linear`."""
    mean, maps = half_means(x), []
    for half, weight in zip(np.split(x, 2, axis=1), (1.0, IMAGE), strict=True):
        fitted = fit_pca(lambda: [half], WIDTH, POWER)  # noqa: B023
        length = np.sqrt(np.square(applied(fitted, half)).sum() / max(1, half.any(axis=1).sum()))
        maps.append(fitted.map * np.float32(weight / length if length else 0))
    both = block_diag(*maps).astype(np.float32)
    read = centre(torch.from_numpy(x), torch.from_numpy(mean)).numpy() @ both
    return Whitening(mean, both @ fit_pca(lambda: [read], WIDTH, power=0).map)


def half_means(x: np.ndarray) -> np.ndarray:
    """Return the mean of each half over the rows that have it: float32 [n, 2 D] -> [2 D]."""
    parts = [half.sum(axis=0, dtype=np.float64) / max(1, half.any(axis=1).sum()) for half in np.split(x, 2, axis=1)]
    return np.concatenate(parts).astype(np.float32)


def ridge(x: np.ndarray, target: np.ndarray) -> Whitening:
    """Fit ridge regression from summaries to teachers' vectors, float32 [n, 2 D] and [n, W], without rows of zeros."""
    mean, known = half_means(x), target.any(axis=1)
    own = centre(torch.from_numpy(x), torch.from_numpy(mean)).numpy()[known].astype(np.float64)
    gram = own.T @ own
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weight = solve(gram, own.T @ target[known], assume_a="pos").astype(np.float32)  # [2 D, W]
    return Whitening(mean, weight)
