"""Ratings -> filtered, numbered, split interactions, as SQL that DuckDB runs out of core (method.md section 6)."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

import schemas
from pipeline.errors import UserError

BLOCK = 1 << 20  # rows that leave the database at a time


class Rows:
    """The rows of a query, which runs when they are asked for: tables of BLOCK rows, one in memory at a time."""

    def __init__(self, db: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema) -> None:
        self._db, self._sql = db, sql
        self._schema = pa.schema([f.remove_metadata() for f in schema])

    def __iter__(self) -> Iterator[pa.Table]:
        for batch in self._db.sql(self._sql).to_arrow_reader(BLOCK):
            yield pa.Table.from_batches([batch]).cast(self._schema)


class SplitTables(NamedTuple):
    """What the stage writes, to be read while the database is open, and what became of the other rows."""

    interactions: Rows  # INTERACTIONS, by user_id, timestamp, item_id
    users: Rows  # USERS
    item_ids: Rows  # ITEM_IDS
    rows: int  # ratings read
    drops: dict[str, int]  # reason -> ratings
    facts: dict[str, int]  # users, items, rows a split, and pairs that occur more than once


@contextmanager
def database(folder: Path, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that spills into `folder`, which is emptied before and removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with duckdb.connect() as db:
            db.execute(f"SET memory_limit = '{memory_limit.replace(chr(39), '')}'")
            db.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'")
            db.execute("SET enable_progress_bar = false")
            yield db
    except duckdb.Error as e:
        raise UserError(f"interactions: {' '.join(str(e).split())}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def split(
    db: duckdb.DuckDBPyConnection, ratings: str, user_core: int, item_core: int, protocol: str, seed: int
) -> SplitTables:
    """Filter, split and number raw ratings.

    Args:
        db: see `database`.
        ratings: SQL that selects user, item (strings), rating, timestamp in the file's order; rating or timestamp may
            be null throughout, where the source has none.
        user_core: users with fewer ratings are dropped, and
        item_core: items with fewer, until none is left.
        protocol: a key of PROTOCOLS.
        seed: of random order.

    Returns:
        the tables; ids count from 0 in order of first appearance among the rows that are left; duplicates in
        (user, item, timestamp) keep their first row; users without train rows leave valid and test.

    Raises:
        UserError: nothing is left.
    """
    cores = {"user": user_core, "item": item_core}
    rows, drops = _clean(db, ratings, cores, seed)
    drops["below_k_core"] += _shrink(db, cores)
    drops["user_without_train"] = _part(db, protocol)
    if not _one(db, "SELECT count(*) FROM parted"):
        lost = ", ".join(f"{n:,} {reason}" for reason, n in drops.items() if n)
        raise UserError(
            f"no rating is left of {rows:,}: {lost}; lower interactions.user_core and item_core or give more data"
        )
    for what in cores:
        db.execute(
            f"""CREATE TABLE {what}_ids AS
            SELECT {what}, (row_number() OVER (ORDER BY min(pos)) - 1)::INTEGER AS {what}_id
            FROM parted GROUP BY {what}"""
        )
    interactions = "parted JOIN user_ids USING (user) JOIN item_ids USING (item)"
    users = "SELECT user_id, name AS user FROM user_ids JOIN user_names ON code = user ORDER BY user_id"
    items = "SELECT item_id, name AS asin FROM item_ids JOIN item_names ON code = item ORDER BY item_id"
    return SplitTables(
        Rows(
            db, f"SELECT user_id, item_id, rating, timestamp, split FROM {interactions} {ORDER}", schemas.INTERACTIONS
        ),
        Rows(db, users, schemas.USERS),
        Rows(db, items, schemas.ITEM_IDS),
        rows,
        drops,
        _facts(db, "parted", _one(db, "SELECT count(*) FROM user_ids"), _one(db, "SELECT count(*) FROM item_ids")),
    )


PARTS = ("train", "valid", "test")  # names of 0, 1, 2
ORDER = "ORDER BY user_id, timestamp, item_id, split, rating"
RANDOM, TIME = "key, timestamp, pos", "timestamp, pos"
# SQL over `place` (1 .. n in a user's order) and `n`: of three or more the last `out` leave train, the first half of
# them, rounded down, for valid; out is a fifth of n, or 2 if n < 10
_FIFTH = """CASE WHEN n < 3 OR place <= n - out THEN 0 WHEN place <= n - out + out // 2 THEN 1 ELSE 2 END"""
# the first time at which so many tenths of all ratings are past; unlike quantile_disc it can spill
_PAST = """(SELECT min(timestamp) FROM (
    SELECT timestamp, sum(count(*)) OVER (ORDER BY timestamp) AS past, sum(count(*)) OVER () AS n
    FROM core GROUP BY timestamp) WHERE 10 * past >= {} * n)"""
PROTOCOLS = {
    "mmrec": (RANDOM, _FIFTH),
    "user-time": (TIME, _FIFTH),
    "leave-one-out": (TIME, "CASE WHEN n < 3 OR place < n - 1 THEN 0 WHEN place = n - 1 THEN 1 ELSE 2 END"),
    "global-time": (
        TIME,
        f"CASE WHEN timestamp <= {_PAST.format(8)} THEN 0 WHEN timestamp <= {_PAST.format(9)} THEN 1 ELSE 2 END",
    ),
}
"""name -> order of a user's ratings, and the split as SQL. method.md section 6 has `mmrec`. global-time cuts where four
fifths and nine tenths of all ratings are past; ratings of one second stay together."""


def _part(db: duckdb.DuckDBPyConnection, protocol: str) -> int:
    """Give each rating of `core` its split, in table `parted`; return how many left for want of train."""
    order, rule = PROTOCOLS[protocol]
    if order == TIME and not _one(db, "SELECT count(timestamp) FROM core"):
        raise UserError(f"interactions.protocol {protocol} needs times, and this source has none; use mmrec")
    db.execute(
        f"""CREATE TABLE parted AS SELECT pos, user, item, rating, timestamp, ({rule})::TINYINT AS split
        FROM (SELECT *, CASE WHEN n < 10 THEN 2 ELSE n // 5 END AS out
              FROM (SELECT core.*, row_number() OVER (PARTITION BY user ORDER BY {order}) AS place,
                           count(*) OVER (PARTITION BY user) AS n
                    FROM (SELECT core.*, md5_number_lower(concat_ws(',', u.hash, i.hash, timestamp)) AS key FROM core
                          JOIN user_names u ON u.code = core.user JOIN item_names i ON i.code = core.item) AS core))"""
    )
    db.execute("DROP TABLE core")
    return _one(db, "DELETE FROM parted WHERE user NOT IN (SELECT user FROM parted WHERE split = 0)")


def load_published(db: duckdb.DuckDBPyConnection, ratings: str) -> int:
    """Load a file whose split is published; return its number of items, the largest itemID and one.

    Args:
        db: see `database`.
        ratings: SQL that selects user, item, timestamp, split as integers or null, and rating.

    Raises:
        UserError: a value is no number or out of range; names the line.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps the file's order, so rowid tells the line
    bad = db.execute(
        "SELECT rowid + 2, user, item, split FROM raw WHERE NOT (user BETWEEN 0 AND 2147483646 AND "
        "item BETWEEN 0 AND 2147483646 AND split BETWEEN 0 AND 2) IS TRUE ORDER BY rowid LIMIT 1"
    ).fetchall()
    if bad:
        line, user, item, split = bad[0]
        raise UserError(
            f"the .inter file, line {line}: userID {user}, itemID {item}, x_label {split}; expected whole numbers from "
            "0 and x_label 0, 1 or 2"
        )
    if not _one(db, "SELECT count(*) FROM raw"):
        raise UserError("the .inter file has no rows")
    return _one(db, "SELECT max(item) + 1 FROM raw")


def published(db: duckdb.DuckDBPyConnection, asins: list[str], keep_time: bool) -> SplitTables:
    """Return what `load_published` loaded: numbers and split are the source's.

    Users and items that have a number but no rows stay. Users without train rows leave valid and test.

    Args:
        db: see `database`.
        asins: identifier of each item.
        keep_time: whether the timestamp column means something.
    """
    time = "timestamp" if keep_time else "NULL::BIGINT"
    db.execute(
        "CREATE VIEW kept AS SELECT * FROM raw WHERE split = 0 OR user IN (SELECT user FROM raw WHERE split = 0)"
    )
    interactions = f"SELECT user::INTEGER AS user_id, item::INTEGER AS item_id, rating, {time} AS timestamp, split"
    rows, users = _one(db, "SELECT count(*) FROM raw"), _one(db, "SELECT max(user) + 1 FROM raw")
    db.register("asins", pa.table({"item_id": pa.array(range(len(asins)), pa.int32()), "asin": asins}))
    return SplitTables(
        Rows(db, f"{interactions} FROM kept {ORDER}", schemas.INTERACTIONS),
        Rows(
            db, f"SELECT i::INTEGER AS user_id, i::VARCHAR AS user FROM range({users}) r(i) ORDER BY i", schemas.USERS
        ),
        Rows(db, "SELECT * FROM asins ORDER BY item_id", schemas.ITEM_IDS),
        rows,
        {"user_without_train": rows - _one(db, "SELECT count(*) FROM kept")},
        _facts(db, "kept", users, len(asins)),
    )


def _facts(db: duckdb.DuckDBPyConnection, table: str, users: int, items: int) -> dict[str, int]:
    parts = {name: _one(db, f"SELECT count(*) FROM {table} WHERE split = {i}") for i, name in enumerate(PARTS)}
    pairs = f"SELECT count(*) AS n FROM {table} GROUP BY user, item"
    return (
        {"users": users, "items": items}
        | parts
        | {"repeated_pairs": _one(db, f"SELECT coalesce(sum(n - 1), 0) FROM ({pairs})")}
    )


def _clean(db: duckdb.DuckDBPyConnection, ratings: str, cores: dict[str, int], seed: int) -> tuple[int, dict[str, int]]:
    """Load the ratings into `core` with integer codes for users and items; return rows read and drops.

    Most ratings are of users or items that have too few even with duplicates: they go before anything is paid for them.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps the file's order, so rowid tells it, and `pos` from here on
    db.execute("SET preserve_insertion_order = false")
    # a column that is null throughout is one that the source does not have
    has = [c for c in ("rating", "timestamp") if _one(db, f"SELECT count({c}) FROM raw")]
    whole = " AND ".join(f"{c} IS NOT NULL" for c in ("user", "item", *has)) + " AND NOT isnan(coalesce(rating, 0))"
    table, before = "raw", f"(SELECT rowid AS pos, * FROM raw WHERE {whole})"
    counts = [_one(db, "SELECT count(*) FROM raw"), _one(db, f"SELECT count(*) FROM {before}")]
    for what, least in cores.items():
        db.execute(
            f"""CREATE TABLE {what}_names AS
            SELECT name, row_number() OVER ()::UINTEGER AS code, md5_number_lower(concat_ws(',', {seed}, name)) AS hash
            FROM (SELECT {what} AS name FROM {before} GROUP BY {what} HAVING count(*) >= {least})"""
        )
        db.execute(
            f"""CREATE TABLE enough_{what} AS
            SELECT r.* REPLACE (code AS {what}) FROM {before} AS r JOIN {what}_names ON name = r.{what}"""
        )
        db.execute(f"DROP TABLE {table}")
        table = before = f"enough_{what}"
    counts.append(_one(db, f"SELECT count(*) FROM {table}"))
    db.execute(
        f"""CREATE TABLE core AS SELECT min(pos) AS pos, user, item, arg_min(rating, pos) AS rating, timestamp
        FROM {table} GROUP BY user, item, timestamp"""
    )
    db.execute(f"DROP TABLE {table}")
    counts.append(_one(db, "SELECT count(*) FROM core"))
    lost = [left - right for left, right in itertools.pairwise(counts)]
    return counts[0], dict(zip(("missing_value", "below_k_core", "duplicate"), lost, strict=True))


def _shrink(db: duckdb.DuckDBPyConnection, cores: dict[str, int]) -> int:
    """Delete ratings of users and items with too few, until there are none such; return how many."""
    deleted = 0
    while True:  # each pass may bring others below
        few = " OR ".join(
            f"{what} IN (SELECT {what} FROM core GROUP BY {what} HAVING count(*) < {least})"
            for what, least in cores.items()
        )
        now = _one(db, f"DELETE FROM core WHERE {few}")
        if not now:
            return deleted
        deleted += now


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(db.execute(sql).fetchall()[0][0])
