"""Filter, number and split ratings out of core, as SQL in DuckDB (method.md section 6)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split_sql
from alignrec.pipeline.dataset.split import has_cold_items
from alignrec.pipeline.dataset.split_sql import DEFAULT, SPLIT_PARTS, Db, Division, query_count
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.sql import open_database, quote_text

QUERY_BATCH_ROWS = 1 << 20  # fetched from the database at a time
ORDER = "ORDER BY user_id, timestamp, item_id, split, rating"
# the source's own split, in lower case; numbers may have been written as 0.0, 1.0, 2.0
PART_NAMES = {
    0: ("train", "0", "0.0"),
    1: ("valid", "1", "1.0", "val", "validation", "dev"),
    2: ("test", "2", "2.0"),
}


@dataclass(frozen=True)
class Query:
    """Lazy query result: iterating runs it and yields tables of `rows_per_block` rows."""

    db: Db
    sql: str
    schema: pa.Schema
    rows_per_block: int = QUERY_BATCH_ROWS

    def __iter__(self) -> Iterator[pa.Table]:
        plain = pa.schema([field.remove_metadata() for field in self.schema])
        for batch in self.db.sql(self.sql).to_arrow_reader(self.rows_per_block):
            yield pa.Table.from_batches([batch]).cast(plain)


class SplitTables(NamedTuple):
    """Tables to write, readable while the database is open, and counts of dropped rows."""

    interactions: Query  # INTERACTIONS, by user_id, timestamp, item_id
    users: Query  # USERS
    item_ids: Query  # ITEM_IDS
    rows: int  # ratings read
    drops: dict[str, int]  # reason -> ratings
    # users, items, rows per split, repeated pairs; cold items per part for `cold-items`
    facts: dict[str, int]
    division: str = ""  # protocol with its setting if it needs content, such as `cold-items 0.2`
    own_split: bool = False  # whether the split came with the ratings
    rejects: pa.Table | None = None  # schema REJECTS; None if DuckDB read the file directly

    @property
    def rows_left(self) -> int:
        return self.rows - sum(self.drops.values())


@contextmanager
def create_database(folder: Path, memory_limit: str) -> Iterator[Db]:
    try:
        with io.scratch(folder), open_database() as db:
            db.execute(f"SET memory_limit = {quote_text(memory_limit)}")
            db.execute(f"SET temp_directory = {quote_text(folder)}")
            yield db
    except duckdb.Error as e:
        raise UserError(f"interactions: {one_line(e)}") from None


def divide_ratings(
    db: Db,
    ratings: str,
    user_core: int,
    item_core: int,
    division: Division,
    min_rating: float | None = None,
    max_undated: float | None = None,
) -> SplitTables:
    """Filter, split and number ratings.

    `ratings` is SQL for user, item, rating and timestamp in file order; `max_undated` as in
    `load_raw`.
    """
    # Ids count from 0 in order of first appearance among the remaining rows. Of duplicates in
    # (user, item, timestamp) the first row stays. Under `sparse` an item may lose all rows and
    # still be in the catalogue.
    cores = {"user": user_core, "item": item_core}
    rows, drops = split_sql.load_core(db, ratings, cores, division.seed, min_rating, max_undated)
    name = split_sql.divide_core(db, division)
    drops["user_without_train"] = split_sql.delete_untrained(db)
    return _number_rows(db, rows, drops, name)


def import_split(
    db: Db,
    ratings: str,
    min_rating: float | None = None,
    division: Division = DEFAULT,
    max_undated: float | None = None,
) -> SplitTables:
    """Number ratings that have their own split, without k-core or deduplication.

    The SQL also selects `split`; `max_undated` as in `load_raw`.
    """
    split_sql.load_raw(db, ratings, max_undated)
    part = _part_sql()
    _refuse_unknown_part(db, part)

    rows = query_count(db, "SELECT count(*) FROM raw")
    rated, drops = split_sql.complete_rows(db, min_rating)
    for what in ("user", "item"):
        names = f"""SELECT {what} AS name, row_number() OVER ()::UINTEGER AS code
            FROM {rated} GROUP BY {what}"""
        split_sql.create_names(db, what, names, division.seed)
    db.execute(
        f"""CREATE TABLE parted AS
        SELECT pos, u.code AS user, i.code AS item, rating, timestamp, {part}::TINYINT AS split
        FROM {rated} AS r
            JOIN user_names u ON u.name = r.user
            JOIN item_names i ON i.name = r.item"""
    )
    db.execute("DROP TABLE raw")

    name = split_sql.divide_again(db, division, "imported") if division.needs_content else ""
    drops["user_without_train"] = split_sql.delete_untrained(db)
    return _number_rows(db, rows, drops, name)._replace(own_split=True)


def _part_sql() -> str:
    """Return SQL for the number of the part that `split` names, or null."""
    cases = []
    for part, names in PART_NAMES.items():
        cases.append(f"WHEN split IN ({', '.join(map(quote_text, names))}) THEN {part}")
    return f"(CASE {' '.join(cases)} END)"


def _refuse_unknown_part(db: Db, part: str) -> None:
    unknown = db.execute(
        f"SELECT rowid + 1, split FROM raw WHERE {part} IS NULL ORDER BY rowid LIMIT 1"
    ).fetchone()
    if unknown:
        row, name = unknown
        raise UserError(
            f"interactions, row {row}: split is {name!r}; expected train, valid, test, or 0, 1, 2"
        )


def _number_rows(db: Db, rows: int, drops: dict[str, int], division: str) -> SplitTables:
    if not query_count(db, "SELECT count(*) FROM parted"):
        raise _nothing_left(rows, drops)
    for what in ("user", "item"):
        db.execute(
            f"""CREATE TABLE {what}_ids AS
            SELECT {what}, (row_number() OVER (ORDER BY min(pos)) - 1)::INTEGER AS {what}_id
            FROM parted GROUP BY {what}"""
        )
    drops |= drop_left_out(db)

    interactions = f"""SELECT user_id, item_id, rating, timestamp, split
        FROM parted JOIN user_ids USING (user) JOIN item_ids USING (item) {ORDER}"""
    users = """SELECT user_id, name AS user
        FROM user_ids JOIN user_names ON code = user ORDER BY user_id"""
    items = """SELECT item_id, name AS asin
        FROM item_ids JOIN item_names ON code = item ORDER BY item_id"""
    return collect_tables(db, interactions, users, items, rows, drops, division)


def _nothing_left(rows: int, drops: dict[str, int]) -> UserError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in drops.items() if n)
    most_frequent = max(drops, key=drops.__getitem__)
    lower_cores = "lower interactions.user_core and item_core or give more data"
    remedy = split_sql.REMEDIES.get(most_frequent, lower_cores)
    return UserError(f"no rating is left of {rows:,}: {reasons}; {remedy}")


def drop_left_out(db: Db) -> dict[str, int]:
    """Delete ratings that a division leaves out, and return their count."""
    n = query_count(db, "DELETE FROM parted WHERE split IS NULL")
    return {"over_most_train": n} if n else {}


def collect_tables(
    db: Db,
    interactions: str,
    users: str,
    items: str,
    rows: int,
    drops: dict[str, int],
    division: str,
) -> SplitTables:
    """Return the tables of three queries, with the facts of table `parted`."""
    facts = {}
    for name, sql in (("users", users), ("items", items)):
        facts[name] = query_count(db, f"SELECT count(*) FROM ({sql})")
    for part, name in enumerate(SPLIT_PARTS):
        facts[name] = query_count(db, f"SELECT count(*) FROM parted WHERE split = {part}")
    pairs = "SELECT count(*) AS n FROM parted GROUP BY user, item"
    facts["repeated_pairs"] = query_count(db, f"SELECT coalesce(sum(n - 1), 0) FROM ({pairs})")
    if has_cold_items(division):
        for part in (1, 2):
            cold = f"SELECT count(DISTINCT item) FROM parted WHERE split = {part}"
            facts[f"cold_{SPLIT_PARTS[part]}_items"] = query_count(db, cold)

    return SplitTables(
        interactions=Query(db, interactions, schemas.INTERACTIONS),
        users=Query(db, users, schemas.USERS),
        item_ids=Query(db, items, schemas.ITEM_IDS),
        rows=rows,
        drops=drops,
        facts=facts,
        division=division,
    )


def draw_again(db: Db, division: Division, first: SplitTables) -> Query:
    """Draw another split of the same ratings, and return its interactions."""
    split_sql.draw_split(db, division)
    split_sql.delete_untrained(db)
    drop_left_out(db)
    return first.interactions
