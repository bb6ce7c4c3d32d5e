"""k-means, residual, balanced and by pieces, on data with an obvious answer and beside slow ways."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from coding import SHAPE, error, fitted, given, groups
from hypothesis import given as over
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.balanced_kmeans import BalancedKMeans, Rooms, capacity
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


# --- balanced


@over(
    st.integers(2, 9), st.integers(1, 60), st.floats(1, 2), st.integers(1, 60), st.integers(0, 9),
)  # fmt: skip
def test_no_code_has_more_than_the_bound_and_all_items_have_one(
    k: int, n: int, slack: float, rows: int, seed: int
) -> None:
    costs = np.random.default_rng(seed).integers(3, size=(n, k)).astype(np.float32)  # with many ties
    rooms = Rooms(capacity(n, k, slack), k)
    codes = np.concatenate([rooms.take(costs[at : at + rows].copy()) for at in range(0, n, rows)])
    counts = np.bincount(codes, minlength=k)
    assert counts.sum() == n
    assert counts.max() <= capacity(n, k, slack) <= np.ceil(n / k) * slack


def test_whoever_loses_most_keeps_the_code() -> None:
    costs = np.array([[0, 1], [0, 5], [0, 2], [3, 0]], np.float32)
    assert Rooms(2, 2).take(costs).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("slack", [1.0, 1.3])
def test_the_bound_holds_for_codes_of_a_stream(slack: float) -> None:
    x = groups(500, kinds=3)  # most items want the same few codes
    made = fitted("balanced-kmeans", x, slack=slack)
    free = fitted("residual-kmeans", x).assign(given(x))
    bound = capacity(len(x), SHAPE.codes, slack)
    codes = made.assign(given(x, rows=37))
    assert max(np.bincount(column).max() for column in codes.T) <= bound
    assert max(np.bincount(column).max() for column in free.T) > bound


def test_prices_keep_room_for_those_that_come_late() -> None:
    x = groups(2000, kinds=3)
    made = fitted("balanced-kmeans", x, Shape(1, 8), rounds=50)
    assert isinstance(made, BalancedKMeans)
    without = BalancedKMeans(made.centroids, np.zeros_like(made.prices), made.slack)
    late = slice(-300, None)
    with_prices, no_prices = (
        ((x - m.decode(m.assign(given(x, rows=50))))[late] ** 2).sum(axis=1).mean() for m in (made, without)
    )
    assert with_prices < no_prices


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
