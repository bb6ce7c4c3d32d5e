"""Schemas: errors name file, column and row, and each schema is listed with its group."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io import vectors
from alignrec.pipeline.io.errors import UserError


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
    table = pa.Table.from_pylist([row | {"sha256": ""}], schemas.IMAGES)
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


# --- files are written atomically, and tables round-trip


USERS = pa.table({"user_id": pa.array([0, 1], pa.int32()), "user": ["ann", "bob"]})


def features(n: int, start: int = 0, width: int = 4) -> pa.Table:
    rows, vectors = range(start, start + n), np.random.default_rng(0).standard_normal((n, width), dtype=np.float32)
    columns = {"item_id": pa.array(rows, pa.int32()), "asin": [f"A{i}" for i in rows], "has_image": [True] * n}
    return pa.table(columns | {"has_text": [True] * n, "vector": io.vectors(vectors)})


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    io.write_bytes(path, b"old")

    def interrupted() -> None:
        with io.atomic(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / ".made.tmp").symlink_to("theirs")
    io.write_bytes(tmp_path / "made", b"ours")
    assert ((tmp_path / "made").read_text(), (tmp_path / "theirs").read_text()) == ("ours", "theirs")
    assert not (tmp_path / "made").is_symlink()


def test_a_table_round_trips_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    io.write_table(USERS, path, schemas.USERS, {"stage": "interactions"})
    assert io.read_table(path, schemas.USERS).to_pydict() == USERS.to_pydict()
    assert pq.read_schema(path).metadata[b"alignrec"] == b'{"stage": "interactions"}'
    assert io.read_table(path, schemas.USERS, ["user"]).column_names == ["user"]
    with pytest.raises(schemas.ContractError, match=r"bad\.parquet.*'user'"):
        io.write_table(USERS.drop_columns("user"), tmp_path / "bad.parquet", schemas.USERS)
    assert not (tmp_path / "bad.parquet").exists()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"users\.parquet") as e:
        io.read_table(path, schemas.USERS)
    assert "\n" not in str(e.value)


def test_an_absent_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`alignrec interactions shop`"):
        io.read_table(tmp_path / "interactions" / "shop" / "users.parquet", schemas.USERS)
    with pytest.raises(UserError, match="`alignrec encode shop`"):
        io.read_features(tmp_path / "encode" / "shop" / "beit3")


def test_features_are_read_and_mapped_from_all_shards_in_item_order(tmp_path: Path) -> None:
    for number, (first, n) in enumerate([(0, 5), (5, 3)]):
        io.write_table(features(n, first), io.shard(tmp_path, "features", number), schemas.features(4))
    files, table = sorted(tmp_path.iterdir()), io.read_features(tmp_path)
    assert table["item_id"].to_pylist() == list(range(8))
    np.testing.assert_array_equal(io.matrix(table["vector"])[5:], io.matrix(features(3)["vector"]))
    mapped = io.map_features(tmp_path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, io.matrix(table["vector"]))
    assert sorted(tmp_path.iterdir()) == files
    io.write_table(features(3, 6), io.shard(tmp_path, "features", 1), schemas.features(4))
    for read in (io.read_features, io.map_features):
        with pytest.raises(schemas.ContractError, match="row 5: 6, expected 5"):
            read(tmp_path)
    io.shard(tmp_path, "features", 1).write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="features-00001"):
        io.map_features(tmp_path)


@pytest.mark.parametrize(("start", "rows"), [(0, 3), (2, 2), (3, 7), (9, 5), (0, 100), (4, 0)])
def test_rows_of_a_file_are_read_from_the_row_groups_that_hold_them(tmp_path: Path, start: int, rows: int) -> None:
    whole, schema = features(10), schemas.features(4)
    io.write_tables((whole.slice(i, 3) for i in range(0, 10, 3)), path := tmp_path / "a.parquet", schema, {})
    read = io.read_rows(path, schema, ["asin", "vector"], start, rows)
    assert read.to_pylist() == whole.select(["asin", "vector"]).slice(start, rows).to_pylist()


@pytest.mark.parametrize("groups", [1, 16])
def test_slices_hold_no_other_row_groups_nor_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    monkeypatch.setattr(io.tables, "MAX_BYTES_UNMAPPED", 2 << 20)
    path, rows, width = tmp_path / "a.parquet", 16_000, 256  # 16 MB
    x = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    kind = pa.schema([pa.field("vector", schemas.vector(width), nullable=False)])
    table, size = pa.table([io.vectors(x)], kind), rows // groups
    io.write_tables((table.slice(at, size) for at in range(0, rows, size)), path, kind)
    del table
    before, held, first = pa.total_allocated_bytes(), [], 0
    for part in io.read_slices(path, kind, ["vector"], 300):
        held.append(pa.total_allocated_bytes() - before)
        assert np.array_equal(io.matrix(part["vector"]), x[first : first + len(part)])
        first += len(part)
    assert first == rows
    assert max(held) < 8 << 20


def test_a_fault_in_a_slice_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    path, schema = tmp_path / "a.parquet", pa.schema([schemas.contract.ITEM_ID])
    pq.write_table(pa.table({"item_id": pa.array([*range(70), -1, 71], pa.int32())}), path, row_group_size=32)
    for read in (lambda: io.read_slices(path, schema, None, 10), lambda: io.read_tables(path, schema)):
        with pytest.raises(schemas.ContractError, match="row 70: -1 is below 0"):
            list(read())
    pq.write_table(pa.table({"other": pa.array([], pa.int32())}), path)
    with pytest.raises(schemas.ContractError, match="has no column 'item_id'"):
        list(io.read_slices(path, schema, None, 10))
