"""Product quantisation: the vector is cut into L pieces, and each is clustered by itself (Jégou et al., TPAMI 2011).

Its codes have no order from coarse to fine, which is what residual codes are compared with.
n vectors, F width, L levels, K codes a level, S = ceil(F / L) width of a piece.
"""

from typing import Self

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.config.base import Section
from pipeline.errors import UserError
from pipeline.ops.arrays import Tensors, tensor
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.base import Method, Progress, Shape, Vectors, enough, same_width, silent
from pipeline.semantic_ids.residual_kmeans import ResidualKMeansParams


class ProductQuantisation(Method):
    """L codebooks of K pieces. Of the pieces the first F mod L are one number wider than the others."""

    Params = ResidualKMeansParams

    def __init__(self, pieces: list[np.ndarray]) -> None:
        """Take the centroids of each piece, L of float32 [K, S or S - 1]."""
        self.pieces = pieces
        self.ends = np.cumsum([piece.shape[1] for piece in pieces])

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        """Cluster each piece; UserError for fewer vectors than centroids, or a width below L."""
        assert isinstance(params, ResidualKMeansParams)
        enough(vectors, shape)
        if vectors.sample.shape[1] < shape.levels:
            raise UserError(
                f"'semantic_ids.levels': {shape.levels} is more than the width {vectors.sample.shape[1]}, which pq "
                "cuts into so many pieces; give fewer"
            )
        cut = np.array_split(vectors.sample, shape.levels, axis=1)
        return cls([
            kmeans.clustered(np.ascontiguousarray(piece), shape.codes, params.iterations, seed + level)
            for level, piece in enumerate(cut)
        ])  # fmt: skip

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the method with its centroids."""
        return cls([tensor(tensors, name, shape.codes, None) for name in _names(shape.levels)])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the centroids of each piece, `piece.0`, ...: float32 [K, S or S - 1]."""
        return dict(zip(_names(len(self.pieces)), self.pieces, strict=True))

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the nearest centroid of each piece: float32 [b, F] -> int32 [b, L]."""
        same_width(x, int(self.ends[-1]))
        cut = np.split(x, self.ends[:-1], axis=1)
        codes = [kmeans.nearest(part, piece) for part, piece in zip(cut, self.pieces, strict=True)]
        return np.stack(codes, axis=1).astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return an item's centroids side by side: int32 [b, L] -> float32 [b, F]."""
        return np.concatenate([piece[column] for piece, column in zip(self.pieces, codes.T, strict=True)], axis=1)

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the squared distance to each centroid of the last piece, less a number of the row: float32 [b, K]."""
        piece = self.pieces[-1]
        with threadpool_limits(1, user_api="blas"):
            return kmeans.distances(x[:, -piece.shape[1] :], piece)


def _names(levels: int) -> list[str]:
    """Return the names of the tensors."""
    return [f"piece.{level}" for level in range(levels)]
