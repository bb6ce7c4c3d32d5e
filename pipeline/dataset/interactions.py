"""Filter, number and split ratings out of core, as SQL in DuckDB (method.md section 6)."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split_sql as divisions
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.split_sql import DEFAULT, MMREC, PARTS, Db, Division, query_count
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.sql import open_database
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Reader, downloaded_files
from alignrec.pipeline.sources.tabular import Tabular
from alignrec.pipeline.vectors.mapping_files import read_numbering

BLOCK = 1 << 20  # rows fetched from the database at a time
# a published id must be below SPARSEST times the number of distinct ids, or below SPARE
SPARSEST, SPARE = 100, 1_000_000
ORDER = "ORDER BY user_id, timestamp, item_id, split, rating"
# the source's own split, in lower case -> 0, 1, 2; numbers may have been written as 0.0, 1.0, 2.0
SPLITS = {name: part for part, name in enumerate(PARTS)} | {str(part): part for part in range(3)}
SPLITS |= {f"{part}.0": part for part in range(3)} | {"val": 1, "validation": 1, "dev": 1}


@dataclass(frozen=True)
class Query:
    """Lazy query result: iterating runs it and yields tables of BLOCK rows."""

    db: Db
    sql: str
    schema: pa.Schema

    def __iter__(self) -> Iterator[pa.Table]:
        plain = pa.schema([f.remove_metadata() for f in self.schema])
        for batch in self.db.sql(self.sql).to_arrow_reader(BLOCK):
            yield pa.Table.from_batches([batch]).cast(plain)


class SplitTables(NamedTuple):
    """Tables to write, readable while the database is open, and counts of dropped rows."""

    interactions: Query  # INTERACTIONS, by user_id, timestamp, item_id
    users: Query  # USERS
    item_ids: Query  # ITEM_IDS
    rows: int  # ratings read
    drops: dict[str, int]  # reason -> ratings
    facts: dict[
        str, int
    ]  # users, items, rows per split, repeated pairs; cold items per part for `cold-items`
    division: str = ""  # protocol with its setting if it needs content, such as `cold-items 0.2`
    own_split: bool = False  # whether the split came with the ratings
    rejects: pa.Table | None = None  # schema REJECTS; None if DuckDB read the file directly


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
    db: Db,
    ratings: str,
    user_core: int,
    item_core: int,
    division: Division,
    min_rating: float | None = None,
) -> SplitTables:
    """Filter, split and number ratings; `ratings` is SQL for user, item, rating and timestamp in file order."""
    # Ids count from 0 in order of first appearance among the remaining rows. Of duplicates in (user, item, timestamp)
    # the first row stays. Under `sparse` an item may lose all rows and still be in the catalogue.
    rows, drops = divisions.load_core(
        db, ratings, {"user": user_core, "item": item_core}, division.seed, min_rating
    )
    name = divisions.divide_core(db, division)
    drops["user_without_train"] = divisions.delete_untrained(db)
    return _number_rows(db, rows, drops, name)


def import_split(
    db: Db, ratings: str, min_rating: float | None = None, division: Division = DEFAULT
) -> SplitTables:
    """Number ratings that have their own split, without k-core or deduplication; the SQL also selects `split`."""
    db.execute(f"CREATE TABLE raw AS {ratings}")
    cases = " ".join(f"WHEN '{name}' THEN {part}" for name, part in SPLITS.items())
    part = f"(CASE split {cases} END)"
    unknown = db.execute(
        f"SELECT rowid + 1, split FROM raw WHERE {part} IS NULL ORDER BY rowid LIMIT 1"
    ).fetchone()
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
    return _number_rows(db, rows, drops, name)._replace(own_split=True)


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
    drops |= _count_left_out(db)
    return _collect_tables(
        db,
        "SELECT user_id, item_id, rating, timestamp, split FROM parted JOIN user_ids USING (user) "
        f"JOIN item_ids USING (item) {ORDER}",
        "SELECT user_id, name AS user FROM user_ids JOIN user_names ON code = user ORDER BY user_id",
        "SELECT item_id, name AS asin FROM item_ids JOIN item_names ON code = item ORDER BY item_id",
        rows, drops, division,
    )  # fmt: skip


def _collect_tables(
    db: Db,
    interactions: str,
    users: str,
    items: str,
    rows: int,
    drops: dict[str, int],
    division: str,
) -> SplitTables:
    facts = {
        name: query_count(db, f"SELECT count(*) FROM ({sql})")
        for name, sql in (("users", users), ("items", items))
    }
    facts |= {
        name: query_count(db, f"SELECT count(*) FROM parted WHERE split = {i}")
        for i, name in enumerate(PARTS)
    }
    pairs = "SELECT count(*) AS n FROM parted GROUP BY user, item"
    facts["repeated_pairs"] = query_count(db, f"SELECT coalesce(sum(n - 1), 0) FROM ({pairs})")
    if division.startswith(schemas.COLD_ITEMS):
        number = "SELECT count(DISTINCT item) FROM parted WHERE split = {}"
        facts |= {
            f"cold_{name}_items": query_count(db, number.format(i))
            for i, name in enumerate(PARTS)
            if i
        }
    ratings = Query(db, interactions, schemas.INTERACTIONS)
    names = Query(db, users, schemas.USERS), Query(db, items, schemas.ITEM_IDS)
    return SplitTables(ratings, *names, rows, drops, facts, division)


def draw_again(db: Db, division: Division, first: SplitTables) -> Query:
    divisions.draw_split(db, division)
    divisions.delete_untrained(db)
    _count_left_out(db)
    return first.interactions


def _count_left_out(db: Db) -> dict[str, int]:
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
        largest, distinct = db.execute(
            f"SELECT max({what}), count(DISTINCT {what}) FROM raw"
        ).fetchall()[0]
        if largest >= max(SPARSEST * distinct, SPARE):
            line = query_count(db, f"SELECT min(rowid) + 2 FROM raw WHERE {what} = {largest}")
            raise UserError(
                f"the .inter file, line {line}: {what}ID {largest:,}, and only {distinct:,} {what}s have rows; MMRec "
                f"numbers {what}s from 0 on without gaps"
            )
    return query_count(db, "SELECT max(user) + 1 FROM raw"), query_count(
        db, "SELECT max(item) + 1 FROM raw"
    )


def import_published(
    db: Db, asins: list[str], keep_time: bool, min_rating: float | None = None, division: Division = DEFAULT,
    names: list[str] | None = None,
) -> SplitTables:  # fmt: skip
    """Import ratings with their published ids, even ids without rows, and split, unless the division replaces it."""
    time = "timestamp" if keep_time else "NULL::BIGINT"
    rated = "true" if min_rating is None else f"coalesce(rating >= {float(min_rating)}, false)"
    rows, users = (
        query_count(db, "SELECT count(*) FROM raw"),
        query_count(db, "SELECT max(user) + 1 FROM raw"),
    )
    numbered = pa.array(range(users), pa.int32())
    db.register(
        "users", pa.table({"user_id": numbered, "user": names or numbered.cast(pa.string())})
    )
    db.register(
        "asins", pa.table({"item_id": pa.array(range(len(asins)), pa.int32()), "asin": asins})
    )
    db.execute(
        f"""CREATE TABLE parted AS SELECT rowid AS pos, user::INTEGER AS user, item::INTEGER AS item, rating,
        {time} AS timestamp, split::TINYINT AS split FROM raw WHERE {rated}; DROP TABLE raw"""
    )
    below, name = rows - query_count(db, "SELECT count(*) FROM parted"), ""
    if (
        division.needs_content
    ):  # it draws by hashes of names; published files name users only by number
        divisions.create_names(
            db, "user", "SELECT user_id::VARCHAR AS name, user_id AS code FROM users", division.seed
        )
        divisions.create_names(
            db, "item", "SELECT asin AS name, item_id AS code FROM asins", division.seed
        )
        name = divisions.divide_again(db, division, MMREC)
    drops = {"user_without_train": divisions.delete_untrained(db)} | (
        {"below_min_rating": below} if below else {}
    )
    drops |= _count_left_out(db)
    interactions = (
        f"SELECT user AS user_id, item AS item_id, rating, timestamp, split FROM parted {ORDER}"
    )
    users_sql, items_sql = (
        "SELECT * FROM users ORDER BY user_id",
        "SELECT * FROM asins ORDER BY item_id",
    )
    return _collect_tables(db, interactions, users_sql, items_sql, rows, drops, name)


# k-cores to try, in this order; published tables use 5
CORES = (5, 3, 2, 1)
ENOUGH = 10  # minimum users and items of a k-core
MOST_BELOW = 0.5  # share of ratings below the k-core above which the stage warns


class Catalogue(NamedTuple):
    """Size of a catalogue after filtering."""

    core: int  # k of the k-core; 0 if the source has its own split
    users: int
    items: int
    interactions: int


def write_tables(run: Run) -> dict[str, int]:
    params, layout, raw = run.params[Interactions], run.layout, downloaded_files(run.layout.sources)
    how = Division(
        params.protocol, run.seed("split"), params.cold_share, params.most_train, params.draws
    )
    folder = run.folder / ".scratch"
    with create_database(folder, params.memory_limit) as db:
        if run.source.has_split:
            tables, clock = _import_published(run, raw, db, how)
        else:
            tables, clock = split_ratings(db, run.source.reader(), raw, folder, params, how), "unix"
        run.write_all(tables.users, layout.users, schemas.USERS)
        run.write_all(tables.item_ids, layout.item_ids, schemas.ITEM_IDS)
        facts = {"timestamps": clock} | ({"split": "imported"} if tables.own_split else {})
        facts |= {"division": tables.division} if tables.division else {}
        for number in range(how.draws if tables.division else 1):
            rows = (
                draw_again(db, how._replace(draw=number), tables) if number else tables.interactions
            )
            run.write_all(
                rows, replace(layout, drawn=number).interactions, schemas.INTERACTIONS, **facts
            )
    if tables.rejects is not None:
        run.write(tables.rejects, layout.interaction_rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = tables.rows, tables.rows - sum(tables.drops.values())
    for reason, n in tables.drops.items():
        run.count(reason, n)
    run.note(**tables.facts)
    if (below := tables.drops.get("below_k_core", 0)) > MOST_BELOW * tables.rows:
        run.warn(
            f"{below:,} of {tables.rows:,} ratings are of users or items with too few; lower interactions.user_core "
            "and item_core if these should count"
        )
    return tables.facts


def split_ratings(
    db: Db,
    reader: Reader,
    raw: Mapping[str, Path],
    folder: Path,
    params: Interactions,
    division: Division = DEFAULT,
) -> SplitTables:
    """Split a reader's ratings; CSV that DuckDB refuses is rewritten row by row in `folder` first."""

    def read(files: Mapping[str, Path]) -> SplitTables:
        ratings = reader.ratings(files)
        if "split" in db.sql(ratings).columns:
            return import_split(db, ratings, params.min_rating, division)
        return divide_ratings(
            db, ratings, params.user_core, params.item_core, division, params.min_rating
        )

    try:
        return read(raw)
    except duckdb.Error as e:
        begun = query_count(db, "SELECT count(*) FROM duckdb_tables()")
        if begun or isinstance(e, duckdb.OutOfMemoryException) or not isinstance(reader, Tabular):
            raise
        if (again := reader.repair(raw, folder)) is None:
            raise
    files, rejects = again
    tables = read(files)
    lost = {"unreadable_line": len(rejects)} if len(rejects) else {}
    return tables._replace(
        rows=tables.rows + len(rejects), drops=tables.drops | lost, rejects=rejects
    )


def measure_catalogue(source: Source, raw: Mapping[str, Path]) -> Catalogue:
    """Return the largest k-core of CORES with ENOUGH users and items, and its counts."""
    if source.has_split:
        return _measure_published(source.reader(), raw)

    reader: Reader = source.reader()
    with tempfile.TemporaryDirectory() as folder:
        for core in CORES:
            with create_database(Path(folder) / "scratch", Interactions.memory_limit) as db:
                try:
                    params = Interactions(user_core=core, item_core=core)
                    tables = split_ratings(db, reader, raw, Path(folder), params)
                except UserError:
                    if core == CORES[-1]:
                        raise
                    continue
            facts, left = tables.facts, tables.rows - sum(tables.drops.values())
            if (
                tables.own_split
                or core == CORES[-1]
                or min(facts["users"], facts["items"]) >= ENOUGH
            ):
                break
        return Catalogue(0 if tables.own_split else core, facts["users"], facts["items"], left)


def _measure_published(reader: Reader, raw: Mapping[str, Path]) -> Catalogue:
    """Return the counts of a published split, as `_import_published` writes it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        create_database(Path(folder) / "scratch", Interactions.memory_limit) as db,
    ):
        users, items = load_published(db, reader.ratings(raw))
        tables = import_published(db, [str(item) for item in range(items)], keep_time=False)

    return Catalogue(0, users, items, tables.rows - sum(tables.drops.values()))


def _import_published(
    run: Run, raw: Mapping[str, Path], db: Db, division: Division
) -> tuple[SplitTables, str]:
    """Return the tables of a published split, and its clock, from the parameter file or detected."""
    source, names = run.source, None
    file = source.split if isinstance(source, AmazonSource) else source
    assert isinstance(file, mmrec.InterFile)
    users, items = load_published(db, source.reader().ratings(raw))
    clock = file.timestamps or detect_clock(db)
    if file.timestamps is None:
        print(f"{run.label}: {FOUND[clock]}", flush=True)
    if mmrec.ITEMS in raw:
        asins = read_numbering(raw[mmrec.ITEMS], "itemID", mmrec.ITEM_NAMES, items)
    else:
        asins = mmrec.read_asins(raw.get("metadata"), items)
    if mmrec.USERS in raw:
        names = read_numbering(raw[mmrec.USERS], "userID", mmrec.USER_NAMES, users)
    min_rating = run.params[Interactions].min_rating
    return import_published(db, asins, clock != "none", min_rating, division, names), clock


# years 1990 to 2100: smaller numbers are positions or placeholders
EARLIEST, LATEST = 631_152_000, 4_102_444_800
FOUND = {
    "unix": "the .inter file has Unix seconds, so zero-shot is asked; `timestamps: none` ignores them",
    "none": "the .inter file has no Unix seconds, so zero-shot is skipped; if its numbers are positions in a user's "
    "sequence, set `timestamps: order`",
}


def detect_clock(db: Db) -> str:
    """Return `unix` if all published timestamps are Unix seconds that differ, otherwise `none`."""
    real = f"bool_and(coalesce(timestamp >= {EARLIEST} AND timestamp < {LATEST}, false))"
    found = db.execute(f"SELECT {real} AND min(timestamp) < max(timestamp) FROM raw").fetchall()[0][
        0
    ]
    return "unix" if found else "none"
