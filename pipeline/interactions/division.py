"""Divisions of ratings into train, valid and test, as SQL (method.md section 6)."""

from typing import NamedTuple

import duckdb

from pipeline.errors import UserError
from pipeline.interactions.clean import count
from schemas import COLD_ITEMS, SPARSE

PARTS = ("train", "valid", "test")  # names of 0, 1, 2
MMREC, USER_TIME = "mmrec", "user-time"
RANDOM, TIME = "key, timestamp, pos", "timestamp, pos"
# SQL over `place` (1 .. n in a user's order) and `n`: of three or more the last `out` leave train, the first half of
# them, rounded down, for valid; out is a fifth of n, or 2 if n < 10
_FIFTH = """CASE WHEN n < 3 OR place <= n - out THEN 0 WHEN place <= n - out + out // 2 THEN 1 ELSE 2 END"""
# the first time by which a share of all ratings has happened; unlike quantile_disc it can spill
_PAST = """(SELECT min(timestamp) FROM (
    SELECT timestamp, sum(count(*)) OVER (ORDER BY timestamp) AS past, sum(count(*)) OVER () AS n
    FROM core GROUP BY timestamp) WHERE 10 * past >= {} * n)"""
BY_USER = {
    MMREC: (RANDOM, _FIFTH),
    USER_TIME: (TIME, _FIFTH),
    "leave-one-out": (TIME, "CASE WHEN n < 3 OR place < n - 1 THEN 0 WHEN place = n - 1 THEN 1 ELSE 2 END"),
    "global-time": (
        TIME,
        f"CASE WHEN timestamp <= {_PAST.format(8)} THEN 0 WHEN timestamp <= {_PAST.format(9)} THEN 1 ELSE 2 END",
    ),
}
"""name -> order of a user's ratings, and the split as SQL. method.md section 6 has `mmrec`. global-time cuts where four
fifths and nine tenths of all ratings are past; ratings of one second stay together."""
PROTOCOLS = (*BY_USER, COLD_ITEMS, SPARSE)  # names of all divisions


class Division(NamedTuple):
    """A division and its settings."""

    protocol: str = MMREC  # one of PROTOCOLS
    seed: int = 0  # of random order, and of the items that are cold
    cold_share: float = 0.2  # of the items, in `cold-items`
    most_train: int = 5  # train ratings of a user, in `sparse`
    draws: int = 1  # of the protocols that need content: splits that differ by what is cold, or left out
    draw: int = 0  # which of them

    @property
    def needs_content(self) -> bool:
        return self.protocol in (COLD_ITEMS, SPARSE)


def divide(db: duckdb.DuckDBPyConnection, division: Division) -> str:
    """Give each rating of table `core` its split, in table `parted`; return what `divide_again` does, else nothing.

    The database has `core` (pos, user, item, rating, timestamp), and `user_names` and `item_names` (name, code,
    hash). UserError if the protocol needs times, and there are none.
    """
    timed = count(db, "SELECT count(timestamp) FROM core") > 0
    base = division.protocol
    if base == SPARSE:
        base = USER_TIME if timed else MMREC
    if base == COLD_ITEMS:
        db.execute("CREATE TABLE parted AS SELECT *, 0::TINYINT AS split FROM core")
    else:
        _by_user(db, base, timed)
    db.execute("DROP TABLE core")
    return divide_again(db, division, base) if division.needs_content else ""


def divide_again(db: duckdb.DuckDBPyConnection, division: Division, base: str) -> str:
    """Change the split of table `parted` to one that needs content; `split` is null where a rating is left out.

    It is `cold-items`, whatever the split was, or `sparse`, which changes only train. The table is kept as
    `undivided`, for other draws. The division is returned with its number. UserError if too few items would be cold.
    """
    db.execute("ALTER TABLE parted RENAME TO undivided")
    draw(db, division)
    if division.protocol == COLD_ITEMS:
        return f"{COLD_ITEMS} {division.cold_share:g}"
    return f"{SPARSE} {division.most_train} of {base}"


def draw(db: duckdb.DuckDBPyConnection, division: Division) -> None:
    rule, rows = _cold_items(db, division) if division.protocol == COLD_ITEMS else _sparse(db, division)
    db.execute(
        f"""CREATE OR REPLACE TABLE parted AS
        SELECT pos, user, item, rating, timestamp, {rule}::TINYINT AS split FROM {rows}"""
    )


def delete_untrained(db: duckdb.DuckDBPyConnection) -> int:
    return count(db, "DELETE FROM parted WHERE user NOT IN (SELECT user FROM parted WHERE split = 0)")


def _by_user(db: duckdb.DuckDBPyConnection, protocol: str, timed: bool) -> None:
    order, rule = BY_USER[protocol]
    if order == TIME and not timed:
        raise UserError(f"interactions.protocol {protocol} needs times, and this source has none; use mmrec")
    db.execute(
        f"""CREATE TABLE parted AS SELECT pos, user, item, rating, timestamp, ({rule})::TINYINT AS split
        FROM (SELECT *, CASE WHEN n < 10 THEN 2 ELSE n // 5 END AS out
              FROM (SELECT core.*, row_number() OVER (PARTITION BY user ORDER BY {order}) AS place,
                           count(*) OVER (PARTITION BY user) AS n
                    FROM {_with_key("core")} AS core))"""
    )


def _cold_items(db: duckdb.DuckDBPyConnection, division: Division) -> tuple[str, str]:
    """Return SQL that puts all ratings of a share of the items into valid or test, all others into train; and its rows.

    Cold items depend on the seed and the identifiers, not on the order of rows. Draws are parts of a partition of the
    items; when all were cold once, another partition follows.
    """
    items = count(db, "SELECT count(DISTINCT item) FROM undivided")
    cold = round(division.cold_share * items)
    if cold < 2:
        raise UserError(
            f"interactions.cold_share: {division.cold_share:g} of {items:,} items are {cold}, too few for valid and "
            "test; raise it"
        )
    partition, part = divmod(division.draw, items // cold)
    order = f"md5_number_lower(concat_ws(',', {partition}, hash))" if partition else "hash"
    db.execute(
        f"""CREATE OR REPLACE TABLE cold AS
        SELECT code AS item, row_number() OVER (ORDER BY {order}, name, code) - {part * cold} AS place
        FROM item_names WHERE code IN (SELECT item FROM undivided)"""
    )
    rule = f"CASE WHEN place BETWEEN 1 AND {cold // 2} THEN 1 WHEN place BETWEEN 1 AND {cold} THEN 2 ELSE 0 END"
    return f"({rule})", "undivided JOIN cold USING (item)"


def _sparse(db: duckdb.DuckDBPyConnection, division: Division) -> tuple[str, str]:
    """Return SQL that leaves a user few train ratings, and its rows: the latest, or random ones of several draws."""
    timed = division.draws == 1 and count(db, "SELECT count(timestamp) FROM undivided")
    drawn = f"md5_number_lower(concat_ws(',', {division.draw}, key))" if division.draw else "key"
    latest = "timestamp DESC, pos DESC" if timed else f"{drawn}, pos"
    place = f"row_number() OVER (PARTITION BY user, split ORDER BY {latest})"
    rule = f"CASE WHEN split > 0 OR {place} <= {division.most_train} THEN split END"
    return f"({rule})", f"{_with_key('undivided')} AS undivided"


def _with_key(table: str) -> str:
    return f"""(SELECT {table}.*, md5_number_lower(concat_ws(',', u.hash, i.hash, timestamp)) AS key FROM {table}
        JOIN user_names u ON u.code = {table}.user JOIN item_names i ON i.code = {table}.item)"""
