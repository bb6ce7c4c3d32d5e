"""k-means, residual and by pieces, on data with an obvious answer and beside slow ways."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from coding import error, fitted, groups

from pipeline.errors import UserError
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.base import Shape
from pipeline.semantic_ids.product import ProductQuantisation
from pipeline.semantic_ids.residual_kmeans import ResidualKMeans

X = groups()


def test_groups_that_lie_apart_are_found_whatever_the_seed() -> None:
    corners = 10 * np.eye(12, dtype=np.float32)
    x = np.repeat(corners, 30, axis=0) + np.random.default_rng(0).normal(0, 0.3, (360, 12)).astype(np.float32)
    for seed in range(5):
        codes = kmeans.nearest(x, kmeans.clustered(x, 12, 10, seed)).reshape(12, 30)
        assert (codes == codes[:, :1]).all()
        assert len(np.unique(codes)) == 12


def test_centroids_are_means_of_all_vectors_not_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "POINTS", 4)  # 32 of 400 vectors are iterated on
    x = groups(kinds=8)
    centroids = kmeans.clustered(x, 8, 10, 0)
    fewer = faiss.Kmeans(10, 8, niter=10, seed=0, min_points_per_centroid=1, max_points_per_centroid=4)
    fewer.train(x)
    assert ((x - centroids[kmeans.nearest(x, centroids)]) ** 2).sum() < (
        (x - fewer.centroids[kmeans.nearest(x, fewer.centroids)]) ** 2
    ).sum()


def test_nearest_is_nearest_and_of_equal_ones_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "DISTANCES", 24)  # three rows at a time
    centroids = X[[0, 1, 2, 0, 3, 4, 5, 6]]
    slow = [int(((row - centroids) ** 2).sum(axis=1).argmin()) for row in X[:50]]
    assert kmeans.nearest(X[:50], centroids).tolist() == slow
    assert kmeans.all_nearest(X[:50], centroids).tolist() == slow
    assert slow[0] == 0


def test_many_centroids_begin_at_drawn_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "DRAWN", 4)
    assert kmeans.clustered(X, 8, 5, 0).shape == (8, 10)


def test_residual_codes_are_those_of_a_slow_loop() -> None:
    made = fitted("residual-kmeans", X)
    assert isinstance(made, ResidualKMeans)
    for row, codes in zip(X[:40], made.encode(X[:40]), strict=True):
        rest = row.copy()
        for level, code in enumerate(codes):
            assert ((rest - made.centroids[level]) ** 2).sum(axis=1).argmin() == code
            rest = rest - made.centroids[level, code]


# --- by pieces


@pytest.mark.parametrize(("width", "levels"), [(10, 3), (10, 10), (7, 2), (9, 3)])
def test_any_width_is_cut_into_pieces(width: int, levels: int) -> None:
    x = groups(width=width)
    made = fitted("pq", x, Shape(levels, 8))
    assert isinstance(made, ProductQuantisation)
    widths = [piece.shape[1] for piece in made.pieces]
    assert (sum(widths), max(widths) - min(widths)) == (width, int(width % levels > 0))
    codes = made.encode(x)
    changed = codes.copy()
    changed[:, 0] = (changed[:, 0] + 1) % 8
    differs = (made.decode(changed) != made.decode(codes)).any(axis=0)
    assert differs[: widths[0]].all()
    assert not differs[widths[0] :].any()


def test_it_reconstructs_as_well_as_faiss_does() -> None:
    x = groups(2000, width=12)
    made = fitted("pq", x, Shape(3, 16))
    theirs = faiss.ProductQuantizer(12, 3, 4)
    theirs.train(x)
    assert error(made, x, made.encode(x)) < 1.02 * ((x - theirs.decode(theirs.compute_codes(x))) ** 2).sum(1).mean()


def test_more_pieces_than_numbers_are_refused() -> None:
    with pytest.raises(UserError, match=r"'semantic_ids.levels': 3 .*width 2"):
        fitted("pq", groups(width=2))
