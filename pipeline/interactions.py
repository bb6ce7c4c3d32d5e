"""Ratings -> filtered, numbered, split interactions, as SQL that DuckDB runs out of core (method.md section 6)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

import schemas
from pipeline.errors import UserError

SEPARATOR = "chr(31)"  # between the parts of a hashed key


class Split(NamedTuple):
    """What the stage writes, and what became of the other rows."""

    interactions: pa.Table  # INTERACTIONS, by user_id, timestamp, item_id
    users: pa.Table  # USERS
    item_ids: pa.Table  # ITEM_IDS
    rows: int  # ratings read
    drops: dict[str, int]  # reason -> ratings


@contextmanager
def database(folder: Path, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a scratch database that lives, spilled rows too, in `folder`: emptied before, removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with duckdb.connect(str(folder / "scratch.duckdb")) as db:
            db.execute(f"SET memory_limit = '{memory_limit.replace(chr(39), '')}'")
            db.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'")
            db.execute("SET enable_progress_bar = false")
            yield db
    except duckdb.Error as e:
        raise UserError(f"interactions: {' '.join(str(e).split())}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def k_core(db: duckdb.DuckDBPyConnection, ratings: str, k: int, seed: int) -> Split:
    """Filter, number and split raw ratings.

    Args:
        db: see `database`.
        ratings: SQL that selects user, item (strings), rating, timestamp in the file's order.
        k: users and items with fewer ratings are dropped until none is left.
        seed: of the split's random order.

    Returns:
        the tables; ids count from 0 in order of first appearance among the surviving rows; duplicates in
        (user, item, timestamp) keep their first row.

    Raises:
        UserError: nothing survives.
    """
    rows, drops = _clean(db, ratings)
    drops["below_k_core"] = _shrink(db, k)
    if not _one(db, "SELECT count(*) FROM core"):
        raise UserError(
            f"no rating is left of {rows:,} after the {k}-core; lower interactions.k_core or give more data"
        )
    for what in ("user", "item"):
        db.execute(
            f"""CREATE TABLE {what}_ids AS
            SELECT {what}, (row_number() OVER (ORDER BY min(pos)) - 1)::INTEGER AS {what}_id
            FROM core GROUP BY {what}"""
        )
    db.execute(
        f"""CREATE TABLE numbered AS
        SELECT user_id, item_id, rating, timestamp,
               row_number() OVER (PARTITION BY user_id ORDER BY key, timestamp) AS place,
               count(*) OVER (PARTITION BY user_id) AS n
        FROM (SELECT *, md5(concat_ws({SEPARATOR}, {seed}, u.name, i.name, timestamp)) AS key
              FROM core JOIN user_ids USING (user) JOIN item_ids USING (item)
              JOIN names u ON u.code = core.user JOIN names i ON i.code = core.item)"""
    )
    interactions = _table(db, f"SELECT user_id, item_id, rating, timestamp, {MMREC_SPLIT} AS split FROM numbered")
    users = "SELECT user_id, name AS user FROM user_ids JOIN names ON code = user ORDER BY user_id"
    items = "SELECT item_id, name AS asin FROM item_ids JOIN names ON code = item ORDER BY item_id"
    return Split(interactions, _named(db, users, schemas.USERS), _named(db, items, schemas.ITEM_IDS), rows, drops)


# of n interactions in random order the last vt leave train: two if n < 10, else a fifth; half of them, rounded down,
# are valid. Fewer than three stay in train.
MMREC_SPLIT = """(CASE
    WHEN n < 3 OR place <= n - (CASE WHEN n < 10 THEN 2 ELSE n // 5 END) THEN 0
    WHEN place <= n - (CASE WHEN n < 10 THEN 2 ELSE n // 5 END) + (CASE WHEN n < 10 THEN 1 ELSE n // 5 // 2 END) THEN 1
    ELSE 2 END)::TINYINT"""


def published(db: duckdb.DuckDBPyConnection, ratings: str, asins: list[str], keep_time: bool) -> Split:
    """Import a split as it is: numbers and order are the source's; users without train leave valid and test.

    Args:
        db: see `database`.
        ratings: SQL that selects user, item, timestamp, split as integers or null, and rating.
        asins: identifier of each item; ids reach from 0 to its length, with or without interactions.
        keep_time: whether the timestamp column means something.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")
    bad = db.execute(
        "SELECT rowid + 2, user, item, split FROM raw WHERE user IS NULL OR item IS NULL OR split IS NULL "
        f"OR user < 0 OR item NOT BETWEEN 0 AND {len(asins) - 1} OR split NOT BETWEEN 0 AND 2 ORDER BY rowid LIMIT 1"
    ).fetchone()
    if bad:
        raise UserError(
            f"interactions, line {bad[0]}: userID {bad[1]}, itemID {bad[2]}, x_label {bad[3]}; expected whole numbers, "
            f"itemID below {len(asins)}, x_label 0, 1 or 2"
        )
    rows = _one(db, "SELECT count(*) FROM raw")
    trained = "(split = 0 OR user IN (SELECT user FROM raw WHERE split = 0))"
    time = "timestamp" if keep_time else "NULL::BIGINT"
    interactions = _table(
        db,
        f"SELECT user::INTEGER AS user_id, item::INTEGER AS item_id, rating, {time} AS timestamp, split "
        f"FROM raw WHERE {trained}",
    )
    users = pa.table(
        {
            "user_id": pa.array(range(_one(db, "SELECT max(user) + 1 FROM raw")), pa.int32()),
        }
    )
    users = users.append_column("user", users["user_id"].cast(pa.string()))
    item_ids = pa.table({"item_id": pa.array(range(len(asins)), pa.int32()), "asin": pa.array(asins, pa.string())})
    return Split(interactions, users, item_ids, rows, {"user_without_train": rows - len(interactions)})


def items_of(db: duckdb.DuckDBPyConnection, ratings: str) -> int:
    """Return how many items a published file has: the largest itemID and one."""
    return _one(db, f"SELECT coalesce(max(item), -1) + 1 FROM ({ratings})")


def facts(interactions: pa.Table) -> dict[str, int]:
    """Return what a reader of run.json wants to know: rows a split, and pairs that occur more than once."""
    with duckdb.connect() as db:
        db.register("interactions", interactions)
        splits = dict(db.execute("SELECT split, count(*) FROM interactions GROUP BY split").fetchall())
        pairs = _one(db, "SELECT count(*) FROM (SELECT DISTINCT user_id, item_id FROM interactions)")
    return {name: splits.get(i, 0) for i, name in enumerate(("train", "valid", "test"))} | {
        "repeated_pairs": len(interactions) - pairs
    }


def _clean(db: duckdb.DuckDBPyConnection, ratings: str) -> tuple[int, dict[str, int]]:
    """Load the ratings into `core` with integer codes for users and items; return rows read and drops."""
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps the file's order, so rowid tells it
    rows = _one(db, "SELECT count(*) FROM raw")
    whole = (
        "user IS NOT NULL AND item IS NOT NULL AND rating IS NOT NULL AND timestamp IS NOT NULL AND NOT isnan(rating)"
    )
    db.execute(
        f"""CREATE TABLE names AS SELECT row_number() OVER () AS code, name FROM
        (SELECT DISTINCT user AS name FROM raw WHERE {whole} UNION SELECT DISTINCT item FROM raw WHERE {whole})"""
    )
    complete = _one(db, f"SELECT count(*) FROM raw WHERE {whole}")
    db.execute(
        f"""CREATE TABLE core AS
        SELECT min(raw.rowid) AS pos, u.code AS user, i.code AS item, arg_min(rating, raw.rowid) AS rating, timestamp
        FROM raw JOIN names u ON u.name = raw.user JOIN names i ON i.name = raw.item
        WHERE {whole.replace("user", "raw.user").replace("item", "raw.item")} GROUP BY u.code, i.code, timestamp"""
    )
    db.execute("DROP TABLE raw")
    kept = _one(db, "SELECT count(*) FROM core")
    return rows, {"missing_value": rows - complete, "duplicate": complete - kept}


def _shrink(db: duckdb.DuckDBPyConnection, k: int) -> int:
    """Delete ratings of users and items with fewer than k, until none is left; return how many."""
    deleted = 0
    while True:  # each pass may bring others below k
        few = " OR ".join(
            f"{what} IN (SELECT {what} FROM core GROUP BY {what} HAVING count(*) < {k})" for what in ("user", "item")
        )
        now = _one(db, f"DELETE FROM core WHERE {few}")
        if not now:
            return deleted
        deleted += now


def _table(db: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    ordered = f"SELECT * FROM ({sql}) ORDER BY user_id, timestamp, item_id, split, rating"
    return db.sql(ordered).to_arrow_table().cast(pa.schema([f.remove_metadata() for f in schemas.INTERACTIONS]))


def _named(db: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema) -> pa.Table:
    return db.sql(sql).to_arrow_table().cast(schema)


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = db.execute(sql).fetchone()
    assert row is not None
    return int(row[0])
