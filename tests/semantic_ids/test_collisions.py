"""Collisions against slow ways to settle them, and at a size that a slow way would not end with."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.semantic_ids import collisions

K = 4
CODES = st.lists(st.lists(st.integers(0, K - 1), min_size=3, max_size=3), max_size=40).map(
    lambda rows: np.array(rows, np.int32).reshape(-1, 3) // [2, 2, 1]
)


def far(n: int, k: int = K) -> np.ndarray:
    """Return distances, float32 [n, K], with ties."""
    return np.random.default_rng(n).integers(5, size=(n, k)).astype(np.float32)


def settled(codes: np.ndarray, distances: np.ndarray, rows: int) -> np.ndarray:
    moving = np.flatnonzero(collisions.moving(codes, distances.shape[1]))
    parts = (moving[at : at + rows] for at in range(0, len(moving), rows))
    return collisions.reassigned(codes, ((part, distances[part]) for part in parts))


def slowly(codes: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Settle collisions item by item, looking at all others each time."""
    codes = codes.copy()
    first = {tuple(row): i for i, row in reversed(list(enumerate(codes)))}
    kept = {tuple(row) for row in codes}
    for i, row in enumerate(codes.tolist()):
        if first[tuple(row)] == i:
            continue
        for code in np.argsort(distances[i], kind="stable"):
            if (*row[:-1], int(code)) not in kept:
                codes[i, -1] = code
                kept.add(tuple(codes[i].tolist()))
                break
    return codes


@given(CODES)
def test_suffixes_count_from_zero_in_item_order(codes: np.ndarray) -> None:
    seen: Counter[tuple[int, ...]] = Counter()
    expected = []
    for row in map(tuple, codes.tolist()):
        expected.append(seen[row])
        seen[row] += 1
    suffix = collisions.suffixes(codes.astype(np.int32))
    assert suffix.tolist() == expected
    assert suffix.dtype == np.int32
    assert len(np.unique(np.column_stack([codes, suffix]), axis=0)) == len(codes)


@given(CODES, st.integers(1, 9))
def test_reassigned_is_what_the_slow_way_gives(codes: np.ndarray, rows: int) -> None:
    codes = codes.astype(np.int32)
    expected = slowly(codes, far(len(codes)))
    result = settled(codes, far(len(codes)), rows)
    np.testing.assert_array_equal(result, expected)
    assert ((result != codes).any(axis=1) == collisions.moving(codes, K)).all()


@given(CODES)
def test_as_few_items_as_possible_share_an_id(codes: np.ndarray) -> None:
    codes = codes.astype(np.int32)
    result = settled(codes, far(len(codes)), 7)
    np.testing.assert_array_equal(result[:, :-1], codes[:, :-1])
    sizes = Counter(map(tuple, codes[:, :-1].tolist()))
    ids = Counter(tuple(row[:-1]) for row in {tuple(row) for row in result.tolist()})
    assert ids == {prefix: min(size, K) for prefix, size in sizes.items()}
    first = np.unique(codes, axis=0, return_index=True)[1] if len(codes) else []
    np.testing.assert_array_equal(result[first], codes[first])


def test_a_hundred_thousand_items_under_one_prefix_take_no_time() -> None:
    n, k = 100_000, 256
    codes = np.zeros((n, 3), np.int32)
    start = time.process_time()
    moving = np.flatnonzero(collisions.moving(codes, k))
    result = collisions.reassigned(codes, [(moving, np.random.default_rng(0).random((len(moving), k), np.float32))])
    assert time.process_time() - start < 5
    assert len(moving) == k - 1
    assert len(np.unique(result[:, -1])) == k
    assert (collisions.suffixes(result) > 0).sum() == n - k
    assert (result[k:] == 0).all()


def test_one_level_and_no_items() -> None:
    codes = np.zeros((3, 1), np.int32)
    assert settled(codes, np.array([[0, 1, 2], [0, 2, 1], [0, 1, 2]], np.float32), 2).tolist() == [[0], [2], [1]]
    empty = np.zeros((0, 3), np.int32)
    assert settled(empty, far(0), 2).shape == (0, 3)
    assert collisions.suffixes(empty).shape == (0,)
