import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import two_tastes

import schemas
from pipeline import graph


def lists(edges: object) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in edges.to_pylist():  # type: ignore[attr-defined]
        assert row["rank"] == len(found.setdefault(row["item_id"], []))
        found[row["item_id"]].append(row["neighbour_id"])
    return found


def test_each_item_finds_itself_then_its_like() -> None:
    features = np.array([[1, 0], [0, 2], [3, 0.1], [0.1, 1]], np.float32)
    edges = schemas.check(graph.neighbours(features, 2), schemas.EDGES)
    assert lists(edges) == {0: [0, 2], 1: [1, 3], 2: [2, 0], 3: [3, 1]}
    assert edges["cosine"].to_numpy()[::2] == pytest.approx(1)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_blocked_search_is_plain_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "BLOCK", 5)
        found = lists(graph.neighbours(features, k))
    units, _ = graph.normalise(features)
    cosine = units @ units.T
    for i in range(12):
        others = sorted((j for j in range(12) if j != i), key=lambda j: (-cosine[i, j], j))
        assert found[i] == [i, *others[: k - 1]]


def test_equal_items_come_in_order_and_self_first() -> None:
    found = lists(graph.neighbours(np.ones((6, 3), np.float32), 3))
    assert found == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1], 3: [3, 0, 1], 4: [4, 0, 1], 5: [5, 0, 1]}


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_nobodys_neighbour(broken: float) -> None:
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features[2] = broken
    found = lists(schemas.check(graph.neighbours(features, 5), schemas.EDGES))
    assert found[2] == [2]
    assert all(2 not in found[i] and len(found[i]) == 5 for i in (0, 1, 3, 4, 5))


def test_a_small_catalogue_gives_what_it_has() -> None:
    assert lists(graph.neighbours(np.eye(3, dtype=np.float32), 10)) == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1]}


def test_item_graph_divides_by_row_sums_on_both_sides() -> None:
    edges = graph.neighbours(np.array([[1, 0], [1, 1], [0, 1]], np.float32), 2)
    w = np.zeros((3, 3))
    w[edges["item_id"], edges["neighbour_id"]] = edges["cosine"]
    d = np.diag(w.sum(1) ** -0.5)
    np.testing.assert_allclose(graph.item_graph(edges, 3).toarray(), d @ w @ d, atol=1e-6)


def test_user_item_graph_is_a_block_of_the_bipartite_one() -> None:
    split = two_tastes()
    n = split.n_users + split.n_items
    a = np.zeros((n, n))
    a[split.train.users, split.n_users + split.train.items] = 1
    a += a.T
    d = np.diag(np.maximum(a.sum(1), 1) ** -0.5)
    block = (d @ a @ d)[: split.n_users, split.n_users :]
    np.testing.assert_allclose(graph.user_item_graph(split).toarray(), block, atol=1e-6)


def test_item_graph_without_itself_and_with_edges_both_ways() -> None:
    """On a fan of directions 0, 20 and 50 degrees the nearest of 0 is 1, of 1 is 0, of 2 is 1."""
    angle = np.radians([0, 20, 50])
    edges = graph.neighbours(np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), 2)
    own = [[0, 0], [1, 1], [2, 2]]
    one_way = [[0, 1], [1, 0], [2, 1]]
    assert np.argwhere(graph.item_graph(edges, 3).toarray()).tolist() == sorted(own + one_way)
    assert np.argwhere(graph.item_graph(edges, 3, self_neighbour=False).toarray()).tolist() == one_way
    both = graph.item_graph(edges, 3, symmetric=True).toarray()
    assert np.argwhere(both).tolist() == sorted([*own, *one_way, [1, 2]])
    np.testing.assert_allclose(both, both.T, rtol=1e-6)
