"""Nearest rows, against a sort of rounded cosines."""

import numpy as np

from alignrec.pipeline.linalg.nearest import find_nearest
from alignrec.pipeline.linalg.projections import unit_rows


def test_rows_are_those_of_a_stable_sort_and_a_row_that_is_left_out_comes_last() -> None:
    rng = np.random.default_rng(0)
    units = unit_rows(rng.normal(size=(30, 4)).astype(np.float32))[0]
    units[20:] = units[10:20]
    rounded = np.rint((units[:6] @ units.T) * 1e6)
    assert np.array_equal(find_nearest(units[:6], units, 7), np.argsort(-rounded, kind="stable")[:, :7])

    rounded[np.arange(6), np.arange(6)] = -np.inf
    expected = np.argsort(-rounded, kind="stable")
    assert np.array_equal(find_nearest(units[:6], units, 99, np.arange(6)), expected)
