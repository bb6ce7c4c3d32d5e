"""Rows of length 1, or of nothing."""

import numpy as np

from pipeline.ops.rows import unit_rows


def test_rows_keep_their_direction_and_those_without_one_become_zero() -> None:
    x = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 0], [3e38, 3e38], [0, -2]], np.float32)
    units, directed = unit_rows(x)
    assert units.dtype == np.float32
    assert units[:5].tolist() == [[np.float32(0.6), np.float32(0.8)]] + [[0, 0]] * 4
    assert directed.tolist() == [True, False, False, False, False, True]
    assert units[5].tolist() == [0, -1]


def test_each_row_is_itself_over_its_length_to_the_last_bit() -> None:
    x = np.random.default_rng(0).normal(size=(50, 13)).astype(np.float32)
    assert np.array_equal(unit_rows(x)[0], x / np.linalg.norm(x, axis=1, keepdims=True))
