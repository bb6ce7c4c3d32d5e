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
from pipeline.interactions.clean import clean, count, nothing_left, shrink, whole

BLOCK = 1 << 20  # rows that leave the database at a time


class Query:
    """The rows of a query, which runs when they are iterated: tables of BLOCK rows, one in memory at a time."""

    def __init__(self, db: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema) -> None:
        self._db, self._sql = db, sql
        self._schema = pa.schema([f.remove_metadata() for f in schema])

    def __iter__(self) -> Iterator[pa.Table]:
        for batch in self._db.sql(self._sql).to_arrow_reader(BLOCK):
            yield pa.Table.from_batches([batch]).cast(self._schema)


class SplitTables(NamedTuple):
    """The tables that the stage writes, to be read while the database is open, and counts of the other rows."""

    interactions: Query  # INTERACTIONS, by user_id, timestamp, item_id
    users: Query  # USERS
    item_ids: Query  # ITEM_IDS
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
    db: duckdb.DuckDBPyConnection,
    ratings: str,
    user_core: int,
    item_core: int,
    protocol: str,
    seed: int,
    min_rating: float | None = None,
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
        min_rating: lower ratings are dropped, before all else is counted; None keeps all.

    Returns:
        the tables; ids count from 0 in order of first appearance among the rows that are left; duplicates in
        (user, item, timestamp) keep their first row; users without train rows leave valid and test.

    Raises:
        UserError: there is no rating, most lack a value, or nothing is left; says the likely cause.
    """
    cores = {"user": user_core, "item": item_core}
    rows, drops = clean(db, ratings, cores, seed, min_rating)
    drops["below_k_core"] += shrink(db, cores)
    drops["user_without_train"] = _part(db, protocol)
    if not count(db, "SELECT count(*) FROM parted"):
        raise nothing_left(rows, drops)
    return _numbered(db, rows, drops)


def imported(db: duckdb.DuckDBPyConnection, ratings: str, min_rating: float | None = None) -> SplitTables:
    """Number raw ratings whose split is the source's own. No k-core is taken, and no duplicate dropped.

    Args:
        db: see `database`.
        ratings: SQL that selects what `split` takes, and split: train, valid, test, or 0, 1, 2.
        min_rating: as of `split`.

    Returns:
        as `split`.

    Raises:
        UserError: a row has no known split; or as `split`.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")
    known = " ".join(f"WHEN '{name}' THEN {part}" for name, part in SPLITS.items())
    bad = db.execute(
        f"SELECT rowid + 1, split FROM raw WHERE (CASE split {known} END) IS NULL ORDER BY rowid LIMIT 1"
    ).fetchall()
    if bad:
        row, value = bad[0]
        raise UserError(f"interactions, row {row}: split is {value!r}; expected train, valid, test, or 0, 1, 2")
    rows = count(db, "SELECT count(*) FROM raw")
    rated, drops = whole(db, min_rating)
    for what in ("user", "item"):
        db.execute(
            f"""CREATE TABLE {what}_names AS
            SELECT {what} AS name, row_number() OVER ()::UINTEGER AS code FROM {rated} GROUP BY {what}"""
        )
    db.execute(
        f"""CREATE TABLE parted AS
        SELECT pos, u.code AS user, i.code AS item, rating, timestamp, (CASE split {known} END)::TINYINT AS split
        FROM {rated} AS r JOIN user_names u ON u.name = r.user JOIN item_names i ON i.name = r.item"""
    )
    db.execute("DROP TABLE raw")
    drops["user_without_train"] = _delete_untrained(db)
    if not count(db, "SELECT count(*) FROM parted"):
        raise nothing_left(rows, drops)
    return _numbered(db, rows, drops)


def _numbered(db: duckdb.DuckDBPyConnection, rows: int, drops: dict[str, int]) -> SplitTables:
    """Number the users and items of table `parted` in order of first appearance."""
    for what in ("user", "item"):
        db.execute(
            f"""CREATE TABLE {what}_ids AS
            SELECT {what}, (row_number() OVER (ORDER BY min(pos)) - 1)::INTEGER AS {what}_id
            FROM parted GROUP BY {what}"""
        )
    interactions = "parted JOIN user_ids USING (user) JOIN item_ids USING (item)"
    users = "SELECT user_id, name AS user FROM user_ids JOIN user_names ON code = user ORDER BY user_id"
    items = "SELECT item_id, name AS asin FROM item_ids JOIN item_names ON code = item ORDER BY item_id"
    return SplitTables(
        Query(
            db, f"SELECT user_id, item_id, rating, timestamp, split FROM {interactions} {ORDER}", schemas.INTERACTIONS
        ),
        Query(db, users, schemas.USERS),
        Query(db, items, schemas.ITEM_IDS),
        rows,
        drops,
        _facts(db, "parted", count(db, "SELECT count(*) FROM user_ids"), count(db, "SELECT count(*) FROM item_ids")),
    )


PARTS = ("train", "valid", "test")  # names of 0, 1, 2
SPLITS = {name: part for part, name in enumerate(PARTS)} | {str(part): part for part in range(3)}
SPLITS |= {f"{part}.0": part for part in range(3)} | {"val": 1, "validation": 1, "dev": 1}
"""what a source's own split says, in small letters -> 0, 1, 2; numbers may have been written as 0.0, 1.0, 2.0"""
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
    """Give each rating of `core` its split, in table `parted`; return how many were dropped for lack of train rows."""
    order, rule = PROTOCOLS[protocol]
    if order == TIME and not count(db, "SELECT count(timestamp) FROM core"):
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
    return _delete_untrained(db)


def _delete_untrained(db: duckdb.DuckDBPyConnection) -> int:
    """Delete the rows of users who have none in train; return how many."""
    return count(db, "DELETE FROM parted WHERE user NOT IN (SELECT user FROM parted WHERE split = 0)")


def load_published(db: duckdb.DuckDBPyConnection, ratings: str) -> int:
    """Load a file whose split is published; return its number of items, the largest itemID and one.

    Args:
        db: see `database`.
        ratings: SQL that selects user, item, timestamp, split as integers or null, and rating.

    Raises:
        UserError: a value is no number or out of range; names the line.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps the file's order, so rowid gives the line
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
    if not count(db, "SELECT count(*) FROM raw"):
        raise UserError("the .inter file has no rows")
    return count(db, "SELECT max(item) + 1 FROM raw")


def published(
    db: duckdb.DuckDBPyConnection, asins: list[str], keep_time: bool, min_rating: float | None = None
) -> SplitTables:
    """Return what `load_published` loaded: numbers and split are the source's.

    Users and items that have a number but no rows stay. Users without train rows leave valid and test.

    Args:
        db: see `database`.
        asins: identifier of each item.
        keep_time: whether the timestamp column means something.
        min_rating: rows with a lower rating, or none, leave; None keeps all.
    """
    time = "timestamp" if keep_time else "NULL::BIGINT"
    rated = "true" if min_rating is None else f"coalesce(rating >= {float(min_rating)}, false)"
    db.execute(
        f"CREATE VIEW kept AS SELECT * FROM raw WHERE {rated} AND "
        f"(split = 0 OR user IN (SELECT user FROM raw WHERE split = 0 AND {rated}))"
    )
    interactions = f"SELECT user::INTEGER AS user_id, item::INTEGER AS item_id, rating, {time} AS timestamp, split"
    rows, users = count(db, "SELECT count(*) FROM raw"), count(db, "SELECT max(user) + 1 FROM raw")
    low = 0 if min_rating is None else count(db, f"SELECT count(*) FROM raw WHERE NOT {rated}")
    drops = {"user_without_train": rows - low - count(db, "SELECT count(*) FROM kept")}
    drops |= {"below_min_rating": low} if low else {}
    db.register("asins", pa.table({"item_id": pa.array(range(len(asins)), pa.int32()), "asin": asins}))
    return SplitTables(
        Query(db, f"{interactions} FROM kept {ORDER}", schemas.INTERACTIONS),
        Query(
            db, f"SELECT i::INTEGER AS user_id, i::VARCHAR AS user FROM range({users}) r(i) ORDER BY i", schemas.USERS
        ),
        Query(db, "SELECT * FROM asins ORDER BY item_id", schemas.ITEM_IDS),
        rows,
        drops,
        _facts(db, "kept", users, len(asins)),
    )


def _facts(db: duckdb.DuckDBPyConnection, table: str, users: int, items: int) -> dict[str, int]:
    parts = {name: count(db, f"SELECT count(*) FROM {table} WHERE split = {i}") for i, name in enumerate(PARTS)}
    pairs = f"SELECT count(*) AS n FROM {table} GROUP BY user, item"
    return (
        {"users": users, "items": items}
        | parts
        | {"repeated_pairs": count(db, f"SELECT coalesce(sum(n - 1), 0) FROM ({pairs})")}
    )
