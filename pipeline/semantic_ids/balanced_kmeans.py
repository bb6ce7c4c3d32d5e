"""Balanced residual k-means: no code of a level has more than its share of the items, times a slack.

A code that is wanted too often has a price, which is added to its distance. Prices are learned with the centroids, as
the dual of the assignment under the bound. n vectors, m of the sample, F width, L levels, K codes a level.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from pipeline.config.base import Section
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.base import Progress, Shape, Tensors, Vectors, enough, silent, tensor
from pipeline.semantic_ids.residual_kmeans import ResidualKMeans, ResidualKMeansParams


class BalancedKMeansParams(ResidualKMeansParams):
    """Settings of balanced residual k-means."""

    slack: Annotated[float, Field(ge=1)] = 1.1
    """a code has at most ceil(n / K) items times this, rounded down, before collisions are settled"""
    rounds: Annotated[int, Field(ge=1)] = 50
    """of prices and centroids, a level, after k-means"""


class BalancedKMeans(ResidualKMeans):
    """L codebooks of K centroids, each with a price. Items that the codebooks were not made for take the nearest."""

    Params = BalancedKMeansParams

    def __init__(self, centroids: np.ndarray, prices: np.ndarray, slack: float) -> None:
        """Take centroids, float32 [L, K, F], prices, float32 [L, K], and the slack."""
        super().__init__(centroids)
        self.prices, self.slack = prices, slack

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        """Cluster the sample, then its residuals, level by level; UserError for fewer vectors than centroids."""
        assert isinstance(params, BalancedKMeansParams)
        enough(vectors, shape)
        rest, levels, prices = vectors.sample.copy(), [], []
        for level in range(shape.levels):
            start = kmeans.clustered(rest, shape.codes, params.iterations, seed + level)
            centroids, price, codes = _balanced(rest, start, params)
            levels.append(centroids)
            prices.append(price)
            rest -= centroids[codes]
        return cls(np.stack(levels), np.stack(prices), params.slack)

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the method with its centroids, prices and slack."""
        centroids = tensor(tensors, "centroids", shape.levels, shape.codes, None)
        prices = tensor(tensors, "prices", shape.levels, shape.codes)
        return cls(centroids, prices, float(tensor(tensors, "slack", 1, dtype=np.float64)[0]))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return centroids, float32 [L, K, F], prices, float32 [L, K], and slack, float64 [1]."""
        return {"centroids": self.centroids, "prices": self.prices, "slack": np.array([self.slack])}

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return the codes of all vectors in their order, within the bound at each level: int32 [n, L]."""
        levels, k, _ = self.centroids.shape
        rooms = [Rooms(capacity(vectors.n, k, self.slack), k) for _ in range(levels)]
        parts = [np.empty((0, levels), np.int32)]
        for whole in vectors.blocks():
            for x in kmeans.blocks(whole, k):
                rest, codes = x.copy(), np.empty((len(x), levels), np.int32)
                for level, (centroids, prices) in enumerate(zip(self.centroids, self.prices, strict=True)):
                    codes[:, level] = rooms[level].take(_costs(rest, centroids, prices))
                    rest -= centroids[codes[:, level]]
                parts.append(codes)
        return np.concatenate(parts)


class Rooms:
    """How many more items each code of a level can have."""

    def __init__(self, most: int, k: int) -> None:
        """Begin with K empty codes that hold `most` items each."""
        self.free = np.full(k, most)

    def take(self, costs: np.ndarray) -> np.ndarray:
        """Return a code with room for each item, int64 [b], and take the room.

        The cheapest code is taken. Where it has too little room, those keep it for whom the next is dearer by most;
        the others choose again. Each round fills a code or is the last.

        Args:
            costs: float32 [b, K]; overwritten.
        """
        assert self.free.sum() >= len(costs), "more items than the codes have room for"
        codes, waiting = np.empty(len(costs), np.int64), np.arange(len(costs))
        costs[:, self.free == 0] = np.inf
        while len(waiting):
            wanted = costs[waiting].argmin(axis=1)
            order = np.lexsort((-_regret(costs[waiting]), wanted))
            start = np.searchsorted(wanted[order], np.arange(len(self.free)))
            place = np.empty(len(waiting), np.int64)
            place[order] = np.arange(len(waiting)) - start[wanted[order]]
            seated = place < self.free[wanted]
            codes[waiting[seated]] = wanted[seated]
            self.free -= np.bincount(wanted[seated], minlength=len(self.free))
            costs[:, self.free == 0] = np.inf
            waiting = waiting[~seated]
        return codes


def capacity(n: int, k: int, slack: float) -> int:
    """Return how many of n items a code has at most."""
    return int(-(-n // k) * slack)


def _regret(costs: np.ndarray) -> np.ndarray:
    """Return how much dearer the second cheapest of each row is than the cheapest, float32 [b]."""
    cheapest = np.partition(costs, 1, axis=1)[:, :2]
    with np.errstate(invalid="ignore"):  # one code alone has room: all of them want it
        return np.nan_to_num(cheapest[:, 1] - cheapest[:, 0], posinf=float(np.finfo(np.float32).max))


def _costs(x: np.ndarray, centroids: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return distances with prices, float32 [b, K]."""
    with threadpool_limits(1, user_api="blas"):
        return kmeans.distances(x, centroids) + prices


def _balanced(
    x: np.ndarray, centroids: np.ndarray, params: BalancedKMeansParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move centroids to the means of assignments within the bound; return them, their prices, and codes int64 [m].

    A price rises while more items want its code than the bound allows, falls while fewer do, and is never negative.
    """
    k = len(centroids)
    bound, prices = capacity(len(x), k, params.slack), np.zeros(k, np.float32)

    def assigned() -> tuple[np.ndarray, np.ndarray]:
        rooms, parts = Rooms(bound, k), []
        demand = np.zeros(k, np.int64)
        for rows in kmeans.blocks(x, k):
            costs = _costs(rows, centroids, prices)
            demand += np.bincount(costs.argmin(axis=1), minlength=k)
            parts.append(rooms.take(costs))
        return np.concatenate(parts), demand

    for number in range(params.rounds):
        codes, demand = assigned()
        centroids = kmeans.means(x, codes, centroids)
        spread = float(((x - centroids[codes]) ** 2).sum(axis=1).mean(dtype=np.float64))
        step = spread * (1 - number / params.rounds)
        prices = np.maximum(prices + (step * (demand / bound - 1)).astype(np.float32), 0)
    return centroids, prices, assigned()[0]
