"""A feature set to codes: what has no content, what is too few, what collapses, in blocks and by every policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from coding import SHAPE, fitted, groups

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.semantic_ids import build, collisions
from pipeline.semantic_ids.base import Shape

X = groups(200)


def features(folder: Path, x: np.ndarray, rows: int = 70) -> Path:
    """Write a feature set in shards."""
    for number, at in enumerate(range(0, max(1, len(x)), rows)):
        part = x[at : at + rows]
        ids = np.arange(at, at + len(part), dtype=np.int32)
        flags = np.ones(len(part), bool)
        table = pa.table(
            {"item_id": ids, "asin": [f"A{i}" for i in ids], "has_image": flags, "has_text": flags}
        ).append_column("vector", io.vectors(part))
        io.write_table(table, io.shard(folder, "features", number), schemas.features(x.shape[1]))
    return folder


def item_ids(n: int) -> pa.Table:
    return pa.table({"item_id": np.arange(n, dtype=np.int32), "asin": [f"A{i}" for i in range(n)]})


def test_rows_without_direction_have_no_id_and_say_so(tmp_path: Path) -> None:
    x = X.copy() * np.arange(1, 201, dtype=np.float32)[:, None]  # lengths do not count
    nothing = np.isin(np.arange(200), [0, 71, *range(140, 200)])  # the last shard is empty of content
    x[nothing] = 0
    given, directed = build.vectors(features(tmp_path, x), 1000, 0)
    np.testing.assert_array_equal(directed, ~nothing)
    np.testing.assert_allclose(np.concatenate(list(given.blocks())), X[~nothing], atol=1e-6)
    np.testing.assert_array_equal(given.sample, np.concatenate(list(given.blocks())))
    made = fitted("residual-kmeans", given.sample)
    table = build.table(item_ids(200), directed, *build.coded(made, given, "suffix")[1:])
    schemas.check(table, schemas.semantic_ids(3), "table")
    status = np.array(table["status"].to_pylist())
    assert set(status[nothing]) == {"no_content"}
    assert set(status[~nothing]) == {"coded"}
    for column in ("codes", "suffix", "cosine"):
        assert [v is None for v in table[column].to_pylist()] == nothing.tolist()
    np.testing.assert_array_equal(np.array(table["codes"].drop_null().to_pylist()), made.encode(given.sample))


def test_the_sample_is_drawn_from_all_and_follows_from_its_seed(tmp_path: Path) -> None:
    folder = features(tmp_path, X)
    one, other = (build.vectors(folder, 50, seed)[0].sample for seed in (1, 2))
    np.testing.assert_array_equal(one, build.vectors(folder, 50, 1)[0].sample)
    assert one.shape == other.shape == (50, 10)
    rows = [int(np.abs(X - row).sum(axis=1).argmin()) for row in one]
    assert rows == sorted(set(rows))
    assert max(rows) > 140
    assert (one != other).any()


@pytest.mark.parametrize("policy", ["keep", "suffix", "reassign"])
def test_policies(tmp_path: Path, policy: str) -> None:
    x = np.repeat(X[:50], 4, axis=0)
    given, _ = build.vectors(features(tmp_path, x), 1000, 0)
    made = fitted("residual-kmeans", x)
    _, codes, suffix, cosines = build.coded(made, given, policy)
    assert (suffix is None) == (policy != "suffix")
    plain = made.encode(np.concatenate(list(given.blocks())))
    if policy == "reassign":
        moved = (codes != plain).any(axis=1)
        np.testing.assert_array_equal(moved, collisions.moving(plain, SHAPE.codes))
        assert (collisions.suffixes(codes) > 0).sum() < (collisions.suffixes(plain) > 0).sum()
        assert cosines[moved].mean() < cosines[~moved].mean()
    else:
        np.testing.assert_array_equal(codes, plain)


def test_features_that_cannot_be_coded_are_refused(tmp_path: Path) -> None:
    for x, fault in (
        (np.zeros((5, 3)), "no item has content"),
        (np.ones((5, 3)), "all 5 items are equal"),
        (np.outer(np.arange(1, 6), [0.3, -2, 1]), "all 5 items are equal"),
    ):
        with pytest.raises(UserError, match=fault):
            build.vectors(features(tmp_path, x.astype(np.float32)), 1000, 0)
    x[:2] = x[3:] = 0
    given, directed = build.vectors(features(tmp_path, x.astype(np.float32)), 1000, 0)
    assert (given.n, directed.sum()) == (1, 1)
    with pytest.raises(UserError, match=r"'semantic_ids.codes': 8 .* 1 items"):
        fitted("residual-kmeans", given.sample)


def test_levels_that_collapse_are_named_with_what_to_do() -> None:
    few = np.repeat(X[:3], 60, axis=0)
    made = fitted("residual-kmeans", few, Shape(3, 64))
    said = list(build.collapsed(made.encode(few), 64))
    assert [line.partition(":")[0] for line in said] == [f"level {level} has collapsed" for level in (1, 2, 3)]
    assert said[0].endswith("it uses 3 of 64 codes, as few vectors differ; give fewer 'semantic_ids.codes'")
    assert said[1].endswith("as the levels before leave nothing to code; give fewer 'semantic_ids.levels'")
    assert list(build.collapsed(fitted("residual-kmeans", X).encode(X), 8)) == []
    assert list(build.collapsed(np.zeros((1, 3), np.int32), 64)) == []
