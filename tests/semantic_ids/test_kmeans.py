"""k-means and residual k-means on data with an obvious answer and against slow ways."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from coding import fitted, groups

from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.residual_kmeans import ResidualKMeans

X = groups()


def test_groups_that_lie_apart_are_found_whatever_the_seed() -> None:
    corners = 10 * np.eye(12, dtype=np.float32)
    x = np.repeat(corners, 30, axis=0) + np.random.default_rng(0).normal(0, 0.3, (360, 12)).astype(np.float32)
    for seed in range(5):
        codes = kmeans.nearest(x, kmeans.cluster(x, 12, 10, seed)).reshape(12, 30)
        assert (codes == codes[:, :1]).all()
        assert len(np.unique(codes)) == 12


def test_centroids_are_means_of_all_vectors_not_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "POINTS", 4)  # 32 of 400 vectors are iterated on
    x = groups(kinds=8)
    centroids = kmeans.cluster(x, 8, 10, 0)
    fewer = faiss.Kmeans(10, 8, niter=10, seed=0, min_points_per_centroid=1, max_points_per_centroid=4)
    fewer.train(x)
    assert ((x - centroids[kmeans.nearest(x, centroids)]) ** 2).sum() < (
        (x - fewer.centroids[kmeans.nearest(x, fewer.centroids)]) ** 2
    ).sum()


def test_nearest_is_nearest_and_of_equal_ones_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "DISTANCES", 24)  # three rows at a time
    monkeypatch.setattr(kmeans, "DRAWN", 4)
    assert kmeans.cluster(X, 8, 5, 0).shape == (8, 10), "centroids beyond DRAWN begin at drawn vectors"
    centroids = X[[0, 1, 2, 0, 3, 4, 5, 6]]
    slow = [int(((row - centroids) ** 2).sum(axis=1).argmin()) for row in X[:50]]
    assert kmeans.nearest(X[:50], centroids).tolist() == slow
    assert kmeans.all_nearest(X[:50], centroids).tolist() == slow
    assert slow[0] == 0


def test_residual_codes_are_those_of_a_slow_loop() -> None:
    made = fitted("residual-kmeans", X)
    assert isinstance(made, ResidualKMeans)
    for row, codes in zip(X[:40], made.encode(X[:40]), strict=True):
        rest = row.copy()
        for level, code in enumerate(codes):
            assert ((rest - made.centroids[level]) ** 2).sum(axis=1).argmin() == code
            rest = rest - made.centroids[level, code]
