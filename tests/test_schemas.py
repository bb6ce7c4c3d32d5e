"""Schemas: errors name file, column and row, and each schema is listed with its group."""

import numpy as np
import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline.io import vectors


def edges(**changes: pa.Array) -> pa.Table:
    ids = pa.array([0, 1], pa.int32())
    columns = {"item_id": pa.array([0, 0], pa.int32()), "neighbour_id": ids, "rank": ids}
    return pa.table(columns | {"cosine": pa.array([1.0, 0.5], pa.float32())} | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rank": pa.array([0, 1])}, "column 'rank' is int64, expected int32"),
        ({"item_id": pa.array([0, None], pa.int32())}, "column 'item_id', row 1: is null"),
        ({"item_id": pa.array([0, -3], pa.int32())}, "column 'item_id', row 1: -3 is below 0"),
        ({"cosine": pa.array([1, 1.5], pa.float32())}, "column 'cosine', row 1: 1.5 is above 1.001"),
        ({"cosine": pa.array([float("nan"), 0.5], pa.float32())}, "column 'cosine', row 0: nan is not finite"),
        ({"extra": pa.array([1, 2])}, "has an unexpected column 'extra'"),
    ],
)
def test_a_fault_is_named(changes: dict[str, pa.Array], says: str) -> None:
    with pytest.raises(schemas.ContractError) as e:
        schemas.check(edges(**changes), schemas.EDGES, "edges.parquet")
    assert says in str(e.value)
    assert str(e.value).startswith("edges.parquet")


def test_a_good_table_gains_the_documentation_and_a_missing_column_is_named() -> None:
    table = schemas.check(edges(), schemas.EDGES)
    assert b"cosine similarity" in table.schema.field("cosine").metadata[b"doc"]
    with pytest.raises(schemas.ContractError, match="'rank'"):
        schemas.check(edges().drop_columns("rank"), schemas.EDGES)


def test_one_of_is_enforced() -> None:
    bad = pa.table({f.name: pa.nulls(0, f.type) for f in schemas.IMAGES})
    assert schemas.check(bad, schemas.IMAGES).num_rows == 0
    row = {"item_id": 0, "asin": "a", "status": "lost", "reason": "", "url": "", "image": None, "width": 0, "height": 0}
    table = pa.Table.from_pylist([row | {"sha256": "", "phash": None}], schemas.IMAGES)
    with pytest.raises(schemas.ContractError, match="'lost' is none of ok, missing"):
        schemas.check(table, schemas.IMAGES)


def test_vectors_are_checked_through_chunks() -> None:
    good = vectors(np.ones((3, 4), np.float32))
    values = np.ones((2, 4), np.float32)
    values[1, 2] = np.inf
    column = pa.chunked_array([good, vectors(values)])
    n = len(column)
    columns = {"item_id": pa.array(range(n), pa.int32()), "asin": ["x"] * n, "has_image": [True] * n}
    table = pa.table(columns | {"has_text": pa.nulls(n, pa.bool_()), "vector": column})
    with pytest.raises(schemas.ContractError, match="'vector', row 4: element 2"):
        schemas.check(table, schemas.features(4))
    with pytest.raises(schemas.ContractError, match="fixed_size_list"):
        schemas.check(table, schemas.features(5))
