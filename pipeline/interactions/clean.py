"""Filters of raw ratings: missing values, low ratings, k-core."""

import itertools
from collections.abc import Mapping

import duckdb

from pipeline.errors import UserError

# reason that drops most -> what to do; otherwise the cores are too high
REMEDIES = {
    "below_min_rating": "lower interactions.min_rating",
    "user_without_train": "give users rows in train, or another interactions.protocol",
}


def whole(db: duckdb.DuckDBPyConnection, min_rating: float | None) -> tuple[str, dict[str, int]]:
    """Return SQL for the rows of `raw` that lack nothing and are rated high enough, and counts of the others.

    UserError if there is no row, most lack a value, or there is nothing to compare with `min_rating`.
    """
    # a column that is null throughout is one that the source does not have
    has = [c for c in ("rating", "timestamp") if count(db, f"SELECT count({c}) FROM raw")]
    kept = " AND ".join(f"{c} IS NOT NULL" for c in ("user", "item", *has)) + " AND NOT isnan(coalesce(rating, 0))"
    rows, left = count(db, "SELECT count(*) FROM raw"), count(db, f"SELECT count(*) FROM raw WHERE {kept}")
    if not rows:
        raise UserError("the interactions have no rows that can be read; is the file empty, or the metadata in place?")
    drops = {"missing_value": rows - left}
    if 2 * left < rows:
        nulls = {c: count(db, f"SELECT count(*) - count({c}) FROM raw") for c in ("user", "item", *has)}
        raise UserError(
            f"interactions: {rows - left:,} of {rows:,} rows lack a value or cannot be read "
            f"({', '.join(f'{n:,} without {c}' for c, n in nulls.items() if n)}); are reviews and metadata swapped, or "
            "is the source of another `kind` or with other `columns`?"
        )
    if min_rating is not None:
        if "rating" not in has:
            raise UserError("interactions.min_rating needs ratings, and this source has none; leave it out")
        kept += f" AND rating >= {float(min_rating)}"
        drops["below_min_rating"] = left - count(db, f"SELECT count(*) FROM raw WHERE {kept}")
    return f"(SELECT rowid AS pos, * FROM raw WHERE {kept})", drops


def nothing_left(rows: int, drops: Mapping[str, int]) -> UserError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in drops.items() if n)
    cores = "lower interactions.user_core and item_core or give more data"
    remedy = REMEDIES.get(max(drops, key=drops.__getitem__), cores)
    return UserError(f"no rating is left of {rows:,}: {reasons}; {remedy}")


def clean(
    db: duckdb.DuckDBPyConnection, ratings: str, cores: dict[str, int], seed: int, min_rating: float | None
) -> tuple[int, dict[str, int]]:
    """Load the ratings into `core` with integer codes for users and items; return rows read and drops.

    Ratings of users or items that have too few even with duplicates are dropped first, to save time.
    """
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps the file's order, so rowid gives it, and `pos` from here on
    db.execute("SET preserve_insertion_order = false")
    before, drops = whole(db, min_rating)
    rows, table = count(db, "SELECT count(*) FROM raw"), "raw"
    counts = [rows - sum(drops.values())]
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
    counts.append(count(db, f"SELECT count(*) FROM {table}"))
    db.execute(
        f"""CREATE TABLE core AS SELECT min(pos) AS pos, user, item, arg_min(rating, pos) AS rating, timestamp
        FROM {table} GROUP BY user, item, timestamp"""
    )
    db.execute(f"DROP TABLE {table}")
    counts.append(count(db, "SELECT count(*) FROM core"))
    dropped = [left - right for left, right in itertools.pairwise(counts)]
    return rows, drops | dict(zip(("below_k_core", "duplicate"), dropped, strict=True))


def shrink(db: duckdb.DuckDBPyConnection, cores: dict[str, int]) -> int:
    deleted = 0
    while True:  # each pass may push others below
        few = " OR ".join(
            f"{what} IN (SELECT {what} FROM core GROUP BY {what} HAVING count(*) < {least})"
            for what, least in cores.items()
        )
        now = count(db, f"DELETE FROM core WHERE {few}")
        if not now:
            return deleted
        deleted += now


def count(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(db.execute(sql).fetchall()[0][0])
