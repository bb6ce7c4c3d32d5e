"""Feature sets mapped to train interactions, against the equations of ridge regression and of the SVD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import toy
from featured import params, stage, vectors

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.combine import mapped
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.interactions.cooccurrence import user_item_matrix

USERS, ITEMS = 60, 40
RNG = np.random.default_rng(0)
MATRIX = RNG.random((USERS, ITEMS)) < 0.2
NEAR = {"near": {"kind": "mapped", "of": "minilm"}}
MATRIX[:, :3] = False  # items without train interactions


def train(layout: Layout, pairs: list[tuple[int, int]], split: int = schemas.TRAIN) -> None:
    n = len(pairs)
    user, item = zip(*pairs, strict=True)
    columns = [pa.array(user, pa.int32()), pa.array(item, pa.int32()), pa.array([5.0] * n, pa.float32())]
    columns += [pa.array(range(n), pa.int64()), pa.array([split] * n, pa.int8())]
    io.write_table(pa.table(columns, names=schemas.INTERACTIONS.names), layout.interactions, schemas.INTERACTIONS)


def scaled() -> np.ndarray:
    """The matrix R, entry by entry; float64 [U, I]."""
    r = np.zeros(MATRIX.shape)
    for u, i in np.argwhere(MATRIX):
        r[u, i] = 1 / np.sqrt(MATRIX[u].sum() * MATRIX[:, i].sum())
    return r


@pytest.mark.parametrize("width", [5, 128])
def test_factors_are_the_leading_right_singular_vectors(width: int) -> None:
    matrix = user_item_matrix(*np.nonzero(MATRIX), ITEMS)
    actual = mapped.collaborative_factors(matrix, width, 0)
    exact = np.linalg.svd(scaled())[2][: min(width, ITEMS - 3)].T
    assert actual.shape == exact.shape
    assert not actual[:3].any()
    np.testing.assert_allclose(np.abs((actual * exact).sum(axis=0)) / np.sqrt(ITEMS - 3), 1, atol=1e-9)


def test_the_map_has_the_least_squared_error_and_weights_and_blocks_change_nothing() -> None:
    x = (RNG.normal(size=(50, 6)) * [9, 3, 1, 1, 0.1, 0] + 5).astype(np.float32)
    y = RNG.normal(size=(50, 3))
    fitted = mapped.fit_ridge(lambda: [(x[:20], y[:20]), (x[20:20], y[20:20]), (x[20:], y[20:])], 0.5)
    centred = x - x.mean(axis=0, dtype=np.float64)
    penalty = 0.5 * centred.var(axis=0).mean() * len(x)
    rows = np.vstack([centred, np.sqrt(penalty) * np.eye(6)])  # ridge is least squares with these rows beside
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((6, 3))]), rcond=None)[0]
    np.testing.assert_allclose(fitted.map, expected, atol=1e-6)
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0), rtol=1e-6)


def test_all_items_are_mapped_and_those_without_train_interactions_teach_nothing(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    train(layout, pairs := [(0, 0), (0, 1), (1, 1), (1, 3), (2, 3), (2, 5), (3, 0), (3, 3)])
    stage(layout, params("minilm", sets=NEAR))
    x, first = vectors(layout, "minilm"), vectors(layout, "near")
    known = [0, 1, 3, 5]
    targets = mapped.collaborative_factors(
        user_item_matrix(*map(np.array, zip(*pairs, strict=True)), toy.ITEMS), 128, 0
    )[known]
    centred = x[known] - x[known].mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + np.square(centred).sum() / 384 * np.eye(384), centred.T @ targets)
    expected = (x - x[known].mean(axis=0)) @ weights
    np.testing.assert_allclose(first[[0, 1, 2, 3, 5]], expected[[0, 1, 2, 3, 5]], atol=1e-4)
    assert first[2].any()
    assert not first[4].any(), "an item without text has no vector"


def test_without_train_interactions_there_is_nothing_to_map_to(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    train(layout, [(0, 0), (0, 1)], schemas.TEST)
    with pytest.raises(UserError, match="near: no item of shop"):
        stage(layout, params("minilm", sets=NEAR))
