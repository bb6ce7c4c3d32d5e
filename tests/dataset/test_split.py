"""Splits as models take them, co-occurrence, and rows of CSV that cannot be read."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from shop import toy
from shop.tastes import interactions

from alignrec import schemas
from alignrec.commands.terminal import describe_error
from alignrec.pipeline import io
from alignrec.pipeline.dataset import cooccurrence, split
from alignrec.pipeline.dataset.split import contains_keys, limit_users, load_split, pair_keys
from alignrec.pipeline.io import csv_rows
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.download import list_files


def test_rows_go_where_they_say_in_order_and_repeats_and_strangers_leave() -> None:
    rows = [(2, 2, 0), (0, 1, 0), (0, 1, 0), (0, 2, 1), (1, 2, 1), (1, 0, 2), (2, 3, 2)]
    actual = load_split(interactions(rows), 3, 4)
    pairs = [(p.users.tolist(), p.items.tolist()) for p in (actual.train, actual.valid, actual.test)]
    assert pairs == [([0, 2], [1, 2]), ([0], [2]), ([2], [3])]
    assert actual.dropped == {"pair repeated in its split": 1, "user without train interactions": 2}


@pytest.mark.parametrize(("row", "column"), [((0, 3, 0), "item_id"), ((5, 0, 0), "user_id")])
def test_an_id_out_of_range_names_column_and_row(row: tuple[int, int, int], column: str) -> None:
    with pytest.raises(UserError, match=f"'{column}', row 1: {max(row)} "):
        load_split(interactions([(0, 0, 0), row]), 2, 3)
    with pytest.raises(UserError, match="no train rows"):
        load_split(interactions([(0, 0, 1)]), 1, 1)


def test_contains_finds_exactly_the_pairs() -> None:
    pairs = load_split(interactions([(0, 1, 0), (2, 0, 0), (1, 2, 0)]), 3, 3).train
    wanted = np.arange(9).reshape(3, 3)
    assert np.argwhere(contains_keys(pair_keys(pairs, 3), wanted)).tolist() == [[0, 1], [1, 2], [2, 0]]
    assert not contains_keys(np.empty(0, np.int64), wanted).any()


def test_of_a_large_catalogue_drawn_users_are_asked_for_all_of_their_targets() -> None:
    rows = [(u, i, part) for u in range(50) for i, part in ((u % 7, 0), (7, 1), (8, 2))]
    parts = load_split(interactions(rows), 50, 10)
    assert limit_users(parts) is parts
    assert limit_users(parts, max_scores=50 * 10) is parts
    few = limit_users(parts, max_scores=129)
    assert len(np.unique(few.test.users)) == 12
    assert few.valid.users.tolist() == few.test.users.tolist()
    assert {*few.test.items.tolist()} == {8}
    assert few.dropped == {split.NOT_DRAWN: 2 * 38}
    np.testing.assert_array_equal(few.train.users, parts.train.users)
    np.testing.assert_array_equal(limit_users(parts, max_scores=129).test.users, few.test.users)


# --- co-occurrence counts and cosines, against sets and fractions


USERS, ITEMS = 30, 20


BLOCKS = (1, 7, 100)


@pytest.fixture
def seen() -> sp.csr_array:
    """Purchases, some repeated."""
    user, item = np.random.default_rng(0).integers(0, (USERS, ITEMS), (200, 2)).T
    return cooccurrence.user_item_matrix(user, item, ITEMS)


@pytest.mark.parametrize("size", BLOCKS)
def test_scores_are_the_formula_and_equal_ones_are_equal_floats(seen: sp.csr_array, size: int) -> None:
    buyers = [set(column.nonzero()[0].tolist()) for column in seen.toarray().T]
    slow = {
        (i, j): Fraction(len(a & b) ** 2, len(a) * len(b))
        for i, a in enumerate(buyers)
        for j, b in enumerate(buyers)
        if i != j and a & b
    }
    ours = {
        (block[i], j): score[i, j]
        for block, score in cooccurrence.squared_cosines(seen, items_per_block=size)
        for i, j in zip(*map(np.ndarray.tolist, score.nonzero()), strict=True)
    }
    assert ours == {pair: float(score) for pair, score in slow.items()}


@pytest.mark.parametrize("size", BLOCKS)
def test_what_users_have_in_common_is_counted(seen: sp.csr_array, size: int) -> None:
    plain = seen.toarray() @ seen.toarray().T
    np.fill_diagonal(plain, 0)
    blocks = cooccurrence.count_cooccurrences(seen, nodes_per_block=size)
    assert np.array_equal(np.concatenate([counts.toarray() for _, counts in blocks]), plain)


def test_the_largest_of_a_row_are_kept_and_of_equal_ones_the_first() -> None:
    matrix = sp.csr_array(np.array([[1, 3, 3, 0, 3], [0, 0, 0, 0, 0], [0, 2, 0, 0, 1]], np.float32))
    assert cooccurrence.top_k(matrix, 2).toarray().tolist() == [[0, 3, 3, 0, 0], [0] * 5, [0, 2, 0, 0, 1]]


# --- rows of CSV that DuckDB's fast reader refuses: others are read, and unreadable ones are stored as rejects


ROWS = [f"u{i % 20},i{i % 63},{i % 5 + 1},{i}" for i in range(400)]
HEADER = "user,item,rating,timestamp,review"
TEXT = "\n".join([HEADER, *(f"{row},fine" for row in ROWS)]) + "\n"


def stage(root: Path, data: bytes, name: str = "r.csv", **source: object) -> Layout:
    layout = Layout(root, "shop")
    layout.raw.mkdir(parents=True, exist_ok=True)
    (layout.raw / name).write_bytes(data)
    io.write_json(layout.sources, list_files(layout.raw, {"interactions": name}, {}))
    made = {"kind": "tabular", "interactions": name, "timestamps": "order", **source}
    params = toy.params(sources={"shop": made}, interactions={"user_core": 1, "item_core": 1})
    toy.run("interactions", params, root)
    return layout


def rows_of(layout: Layout) -> list[dict]:
    users = pq.read_table(layout.users)["user"].to_pylist()
    items = pq.read_table(layout.item_ids)["asin"].to_pylist()
    rows = pq.read_table(layout.interactions).to_pylist()
    return [row | {"user_id": users[row["user_id"]], "item_id": items[row["item_id"]]} for row in rows]


READ = {
    "a line break within quotes": b'"so\ngood"',
    "a quote within quotes": b'"a ""b"" c"',
    "a byte that is not UTF-8 in a column that is not read": b"caf\xe9",
    "three million characters": b"x" * 3_000_000,
    "a carriage return at the end": b"fine\r",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_an_odd_review_loses_no_row(tmp_path: Path, text: bytes) -> None:
    plain = rows_of(stage(tmp_path / "plain", TEXT.encode()))
    odd = stage(tmp_path / "odd", TEXT.encode().replace(b"fine", text, 1))
    assert rows_of(odd) == plain
    assert len(plain) == 400
    assert not odd.interaction_rejects.exists() or not pq.read_metadata(odd.interaction_rejects).num_rows


BAD = {
    "a value too many": (b"u,i,5,9,fine,more", "more than 5 values"),
    "a user that is no UTF-8": (b"caf\xe9,i,5,9,fine", "not UTF-8"),
    "text after a quote": (b'u,i,5,9,"a"b', "not CSV: ',' expected after '\"'"),
}


@pytest.mark.parametrize(("row", "reason"), BAD.values(), ids=BAD)
def test_a_bad_row_is_a_stored_reject(tmp_path: Path, row: bytes, reason: str) -> None:
    lines = TEXT.encode().splitlines()
    layout = stage(tmp_path, b"\n".join([*lines[:200], row, *lines[200:]]))
    (reject,) = io.read_table(layout.interaction_rejects, schemas.REJECTS).to_pylist()
    assert (reject["file"], reject["line"], reject["reason"]) == ("r.csv", 201, reason)
    assert reject["raw"].rstrip(b"\n") == row
    run = io.read_json(layout.run_record("interactions"))
    assert (run["rows_in"], run["rows_out"]) == (401, 400)
    assert run["drops"]["unreadable_line"] == 1
    assert len(rows_of(layout)) == 400


def test_more_bad_rows_than_allowed_are_refused_and_the_share_is_a_setting(tmp_path: Path) -> None:
    data = TEXT.encode() + b"u,i,5,9,fine,more\n" * 8
    with pytest.raises(UserError, match="8 of 408"):
        stage(tmp_path, data)
    layout = stage(tmp_path, data, max_reject_share=0.05)
    assert (len(rows_of(layout)), layout.interaction_rejects.exists()) == (400, True)


def test_an_ordinary_file_is_not_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage(tmp_path / "odd", TEXT.encode() + b"u,i,5,9,fine,more\n").interaction_rejects.exists()
    monkeypatch.setattr(csv_rows, "read_rows", lambda *_: pytest.fail("read row by row"))
    assert not stage(tmp_path, TEXT.encode()).interaction_rejects.exists()


def test_a_disk_that_fails_is_no_bad_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise duckdb.IOException(
            f'IO Error: Could not read from file "r.csv": {os.strerror(errno.EIO)}\n\nLINE 1: FROM'
        )

    monkeypatch.setattr("alignrec.pipeline.dataset.interactions._split_files", fail)
    with pytest.raises(OSError, match=r"Could not read from file \"r.csv\"") as caught:
        stage(tmp_path, TEXT.encode())
    message = describe_error(caught.value) or ""
    assert (caught.value.errno, "r.csv" in message, "\n" in message) == (errno.EIO, True, False)
