"""Filter, number and split ratings out of core, as SQL in DuckDB (method.md section 6)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.interactions import division as divisions
from alignrec.pipeline.interactions.division import DEFAULT, MMREC, PARTS, Db, Division, query_count
from alignrec.pipeline.sources.sql import open_database

BLOCK = 1 << 20  # rows fetched from the database at a time
# a published id must be below SPARSEST times the number of distinct ids, or below SPARE
SPARSEST, SPARE = 100, 1_000_000
ORDER = "ORDER BY user_id, timestamp, item_id, split, rating"
# the source's own split, in lower case -> 0, 1, 2; numbers may have been written as 0.0, 1.0, 2.0
SPLITS = {name: part for part, name in enumerate(PARTS)} | {str(part): part for part in range(3)}
SPLITS |= {f"{part}.0": part for part in range(3)} | {"val": 1, "validation": 1, "dev": 1}


class Query:
    """Lazy query result: iterating runs it and yields tables of BLOCK rows."""

    def __init__(self, db: Db, sql: str, schema: pa.Schema) -> None:
        self._db, self._sql = db, sql
        self._schema = pa.schema([f.remove_metadata() for f in schema])

    def __iter__(self) -> Iterator[pa.Table]:
        for batch in self._db.sql(self._sql).to_arrow_reader(BLOCK):
            yield pa.Table.from_batches([batch]).cast(self._schema)


class SplitTables(NamedTuple):
    """Tables to write, readable while the database is open, and counts of dropped rows."""

    interactions: Query  # INTERACTIONS, by user_id, timestamp, item_id
    users: Query  # USERS
    item_ids: Query  # ITEM_IDS
    rows: int  # ratings read
    drops: dict[str, int]  # reason -> ratings
    facts: dict[str, int]  # users, items, rows per split, repeated pairs; cold items per part for `cold-items`
    division: str = ""  # protocol with its setting if it needs content, such as `cold-items 0.2`


@contextmanager
def create_database(folder: Path, memory_limit: str) -> Iterator[Db]:
    try:
        with io.scratch(folder), open_database() as db:
            db.execute(f"SET memory_limit = '{memory_limit.replace(chr(39), '')}'")
            db.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'")
            yield db
    except duckdb.Error as e:
        raise UserError(f"interactions: {one_line(e)}") from None


def divide_ratings(
    db: Db, ratings: str, user_core: int, item_core: int, division: Division, min_rating: float | None = None
) -> SplitTables:
    """Filter, split and number ratings; `ratings` is SQL for user, item, rating and timestamp in file order."""
    # Ids count from 0 in order of first appearance among the remaining rows. Of duplicates in (user, item, timestamp)
    # the first row stays. Under `sparse` an item may lose all rows and still be in the catalogue.
    rows, drops = divisions.load_core(db, ratings, {"user": user_core, "item": item_core}, division.seed, min_rating)
    name = divisions.divide_core(db, division)
    drops["user_without_train"] = divisions.delete_untrained(db)
    return _number_rows(db, rows, drops, name)


def import_split(db: Db, ratings: str, min_rating: float | None = None, division: Division = DEFAULT) -> SplitTables:
    """Number ratings that have their own split, without k-core or deduplication; the SQL also selects `split`."""
    db.execute(f"CREATE TABLE raw AS {ratings}")
    cases = " ".join(f"WHEN '{name}' THEN {part}" for name, part in SPLITS.items())
    part = f"(CASE split {cases} END)"
    unknown = db.execute(f"SELECT rowid + 1, split FROM raw WHERE {part} IS NULL ORDER BY rowid LIMIT 1").fetchone()
    if unknown:
        raise UserError(
            f"interactions, row {unknown[0]}: split is {unknown[1]!r}; expected train, valid, test, or 0, 1, 2"
        )
    rows = query_count(db, "SELECT count(*) FROM raw")
    rated, drops = divisions.complete_rows(db, min_rating)
    for what in ("user", "item"):
        code = f"SELECT {what} AS name, row_number() OVER ()::UINTEGER AS code FROM {rated} GROUP BY {what}"
        divisions.create_names(db, what, code, division.seed)
    db.execute(
        f"""CREATE TABLE parted AS
        SELECT pos, u.code AS user, i.code AS item, rating, timestamp, {part}::TINYINT AS split
        FROM {rated} AS r JOIN user_names u ON u.name = r.user JOIN item_names i ON i.name = r.item"""
    )
    db.execute("DROP TABLE raw")
    name = divisions.divide_again(db, division, "imported") if division.needs_content else ""
    drops["user_without_train"] = divisions.delete_untrained(db)
    return _number_rows(db, rows, drops, name)


def _number_rows(db: Db, rows: int, drops: dict[str, int], division: str) -> SplitTables:
    if not query_count(db, "SELECT count(*) FROM parted"):
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in drops.items() if n)
        cores = "lower interactions.user_core and item_core or give more data"
        remedy = divisions.REMEDIES.get(max(drops, key=drops.__getitem__), cores)
        raise UserError(f"no rating is left of {rows:,}: {reasons}; {remedy}")
    for what in ("user", "item"):
        db.execute(
            f"""CREATE TABLE {what}_ids AS
            SELECT {what}, (row_number() OVER (ORDER BY min(pos)) - 1)::INTEGER AS {what}_id
            FROM parted GROUP BY {what}"""
        )
    drops |= _left_out(db)
    return _collect_tables(
        db,
        "SELECT user_id, item_id, rating, timestamp, split FROM parted JOIN user_ids USING (user) "
        f"JOIN item_ids USING (item) {ORDER}",
        "SELECT user_id, name AS user FROM user_ids JOIN user_names ON code = user ORDER BY user_id",
        "SELECT item_id, name AS asin FROM item_ids JOIN item_names ON code = item ORDER BY item_id",
        rows, drops, division,
    )  # fmt: skip


def _collect_tables(
    db: Db, interactions: str, users: str, items: str, rows: int, drops: dict[str, int], division: str
) -> SplitTables:
    facts = {
        name: query_count(db, f"SELECT count(*) FROM ({sql})") for name, sql in (("users", users), ("items", items))
    }
    facts |= {name: query_count(db, f"SELECT count(*) FROM parted WHERE split = {i}") for i, name in enumerate(PARTS)}
    pairs = "SELECT count(*) AS n FROM parted GROUP BY user, item"
    facts["repeated_pairs"] = query_count(db, f"SELECT coalesce(sum(n - 1), 0) FROM ({pairs})")
    if division.startswith(schemas.COLD_ITEMS):
        number = "SELECT count(DISTINCT item) FROM parted WHERE split = {}"
        facts |= {f"cold_{name}_items": query_count(db, number.format(i)) for i, name in enumerate(PARTS) if i}
    ratings = Query(db, interactions, schemas.INTERACTIONS)
    names = Query(db, users, schemas.USERS), Query(db, items, schemas.ITEM_IDS)
    return SplitTables(ratings, *names, rows, drops, facts, division)


def draw_again(db: Db, division: Division, first: SplitTables) -> Query:
    divisions.draw_split(db, division)
    divisions.delete_untrained(db)
    _left_out(db)
    return first.interactions


def _left_out(db: Db) -> dict[str, int]:
    n = query_count(db, "DELETE FROM parted WHERE split IS NULL")
    return {"over_most_train": n} if n else {}


def load_published(db: Db, ratings: str) -> tuple[int, int]:
    """Load ratings with published ids and split; return how many users and items the ids count."""
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps file order, so rowid gives the line
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
    if not query_count(db, "SELECT count(*) FROM raw"):
        raise UserError("the .inter file has no rows")
    for what in ("user", "item"):  # every id below the largest takes memory
        largest, distinct = db.execute(f"SELECT max({what}), count(DISTINCT {what}) FROM raw").fetchall()[0]
        if largest >= max(SPARSEST * distinct, SPARE):
            line = query_count(db, f"SELECT min(rowid) + 2 FROM raw WHERE {what} = {largest}")
            raise UserError(
                f"the .inter file, line {line}: {what}ID {largest:,}, and only {distinct:,} {what}s have rows; MMRec "
                f"numbers {what}s from 0 on without gaps"
            )
    return query_count(db, "SELECT max(user) + 1 FROM raw"), query_count(db, "SELECT max(item) + 1 FROM raw")


def import_published(
    db: Db,
    asins: list[str],
    keep_time: bool,
    min_rating: float | None = None,
    division: Division = DEFAULT,
    names: list[str] | None = None,
) -> SplitTables:
    """Keep the published ids, including those without rows, and the split unless the division needs content."""
    time = "timestamp" if keep_time else "NULL::BIGINT"
    rated = "true" if min_rating is None else f"coalesce(rating >= {float(min_rating)}, false)"
    rows, users = query_count(db, "SELECT count(*) FROM raw"), query_count(db, "SELECT max(user) + 1 FROM raw")
    numbered = pa.array(range(users), pa.int32())
    db.register("users", pa.table({"user_id": numbered, "user": names or numbered.cast(pa.string())}))
    db.register("asins", pa.table({"item_id": pa.array(range(len(asins)), pa.int32()), "asin": asins}))
    db.execute(
        f"""CREATE TABLE parted AS SELECT rowid AS pos, user::INTEGER AS user, item::INTEGER AS item, rating,
        {time} AS timestamp, split::TINYINT AS split FROM raw WHERE {rated}; DROP TABLE raw"""
    )
    below, name = rows - query_count(db, "SELECT count(*) FROM parted"), ""
    if division.needs_content:  # which needs name tables: users by number, items by identifier
        divisions.create_names(db, "user", "SELECT user_id::VARCHAR AS name, user_id AS code FROM users", division.seed)
        divisions.create_names(db, "item", "SELECT asin AS name, item_id AS code FROM asins", division.seed)
        name = divisions.divide_again(db, division, MMREC)
    drops = {"user_without_train": divisions.delete_untrained(db)} | ({"below_min_rating": below} if below else {})
    drops |= _left_out(db)
    interactions = f"SELECT user AS user_id, item AS item_id, rating, timestamp, split FROM parted {ORDER}"
    users_sql, items_sql = "SELECT * FROM users ORDER BY user_id", "SELECT * FROM asins ORDER BY item_id"
    return _collect_tables(db, interactions, users_sql, items_sql, rows, drops, name)
