"""Residual k-means: each level clusters what the levels before have left (RQ, arXiv 2203.01941, with k-means).

n vectors, F width, L levels, K codes a level.
"""

from __future__ import annotations

from typing import ClassVar, Self

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.config import Section
from pipeline.config.base import Positive
from pipeline.errors import UserError
from pipeline.semantic_ids.base import MethodParams, Shape, Tensors, Vectors


class ResidualKMeansParams(MethodParams):
    """Settings of residual k-means."""

    iterations: Positive = 25
    """of k-means, a level"""


class ResidualKMeans:
    """L codebooks of K centroids."""

    Params: ClassVar[type[Section]] = ResidualKMeansParams
    control: ClassVar[bool] = False

    def __init__(self, centroids: np.ndarray) -> None:
        """Take centroids, float32 [L, K, F]."""
        self.centroids = centroids

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int) -> Self:
        """Cluster the sample, then its residuals, level by level; UserError for fewer vectors than centroids."""
        assert isinstance(params, ResidualKMeansParams)
        if len(vectors.sample) < shape.codes:
            raise UserError(
                f"'semantic_ids.codes': {shape.codes} is more than the {len(vectors.sample):,} items with content; "
                "give fewer"
            )
        rest, levels = vectors.sample.copy(), []
        for level in range(shape.levels):
            levels.append(_clustered(rest, shape.codes, params.iterations, seed + level))
            rest -= levels[-1][_nearest(rest, levels[-1])]
        return cls(np.stack(levels))

    @classmethod
    def of(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the method with its centroids."""
        return cls(tensors["centroids"])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the centroids, float32 [L, K, F]."""
        return {"centroids": self.centroids}

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return the codes of all vectors, int32 [n, L]."""
        return np.concatenate([self.encode(x) for x in vectors.blocks()])

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the nearest centroid of each level: float32 [b, F] -> int32 [b, L]."""
        rest, codes = x.copy(), []
        for centroids in self.centroids:
            codes.append(_nearest(rest, centroids))
            rest -= centroids[codes[-1]]
        return np.stack(codes, axis=1).astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the sum of an item's centroids: int32 [b, L] -> float32 [b, F]."""
        return np.asarray(sum(level[column] for level, column in zip(self.centroids, codes.T, strict=True)))

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the squared distance to each centroid of the last level: float32 [b, K]."""
        rest = x - self.decode(codes) + self.centroids[-1][codes[:, -1]]
        return _distances(rest, self.centroids[-1])


def _clustered(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """Return the centroids of k-means, float32 [K, F]; one thread, as the order of sums decides the last bits."""
    with threadpool_limits(1):
        kmeans = faiss.Kmeans(x.shape[1], k, niter=iterations, seed=seed % 2**31, min_points_per_centroid=1)
        kmeans.train(x)
    return np.asarray(kmeans.centroids)


def _nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of each row, int64 [n]; of equal ones the first."""
    return _distances(x, centroids).argmin(axis=1)


def _distances(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return squared distances less the rows' own squares, float32 [n, K]."""
    with threadpool_limits(1):
        return (centroids**2).sum(axis=1) - 2 * (x @ centroids.T)
