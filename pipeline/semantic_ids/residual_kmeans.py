"""Residual k-means: each level clusters what the levels before have left (RQ, arXiv 2203.01941, with k-means).

n vectors, F width, L levels, K codes a level.
"""

from typing import Self

import numpy as np

from pipeline.config.base import Positive, Section
from pipeline.ops.arrays import Tensors, tensor
from pipeline.ops.linalg import limited
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.base import Method, Progress, Shape, Vectors, enough, same_width, silent


class ResidualKMeansParams(Section):
    """Settings of residual k-means."""

    iterations: Positive = 25
    """of k-means, a level"""


class ResidualKMeans(Method):
    """L codebooks of K centroids."""

    Params = ResidualKMeansParams

    def __init__(self, centroids: np.ndarray) -> None:
        self.centroids = centroids

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        assert isinstance(params, ResidualKMeansParams)
        enough(vectors, shape)
        rest, levels = vectors.sample.copy(), []
        for level in range(shape.levels):
            levels.append(kmeans.cluster(rest, shape.codes, params.iterations, seed + level))
            rest -= levels[-1][kmeans.all_nearest(rest, levels[-1])]
        return cls(np.stack(levels))

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        return cls(tensor(tensors, "centroids", shape.levels, shape.codes, None))

    def tensors(self) -> dict[str, np.ndarray]:
        return {"centroids": self.centroids}

    def encode(self, x: np.ndarray) -> np.ndarray:
        same_width(x, self.centroids.shape[2])
        rest, codes = x.copy(), np.empty((len(x), len(self.centroids)), np.int32)
        for level, centroids in enumerate(self.centroids):
            codes[:, level] = kmeans.nearest(rest, centroids)
            rest -= centroids[codes[:, level]]
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(sum(level[column] for level, column in zip(self.centroids, codes.T, strict=True)))

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the squared distance to each centroid of the last level, less a number of the row: float32 [b, K]."""
        rest = x - self.decode(codes) + self.centroids[-1][codes[:, -1]]
        with limited(1, user_api="blas"):
            return kmeans.distances(rest, self.centroids[-1])
