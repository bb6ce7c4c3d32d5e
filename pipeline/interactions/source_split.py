"""Apply a source's own or published split, or the protocol of the parameters."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.config.parameters import Source
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.interactions import build
from alignrec.pipeline.interactions.division import DEFAULT, Db, Division, query_count
from alignrec.pipeline.interactions.params import Interactions
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Reader, downloaded_files
from alignrec.pipeline.sources.mmrec import MmrecSource
from alignrec.pipeline.sources.tabular import Tabular

# k-cores to try, in this order; published tables use 5
CORES = (5, 3, 2, 1)
ENOUGH = 10  # least users and items of a k-core
MOST_BELOW = 0.5  # share of ratings below the k-core above which the stage warns


class Divided(NamedTuple):
    """Split interactions, as the stage writes them."""

    tables: build.SplitTables
    own_split: bool = False  # whether the split came with the ratings
    rejects: pa.Table | None = None  # schema REJECTS; None if DuckDB read the file directly


class Catalogue(NamedTuple):
    """Counts after filtering."""

    core: int  # k of the k-core; 0 if the source has its own split
    users: int
    items: int
    interactions: int


def write_tables(run: Run) -> dict[str, int]:
    params, layout, raw = run.params[Interactions], run.layout, downloaded_files(run.layout.sources)
    how = Division(params.protocol, run.seed("split"), params.cold_share, params.most_train, params.draws)
    folder = run.folder / ".scratch"
    with build.create_database(folder, params.memory_limit) as db:
        if run.source.has_split:
            divided = Divided(_import_published(run.source, raw, db, how, params.min_rating))
        else:
            divided = split_ratings(db, run.source.reader(), raw, folder, params, how)
        tables = divided.tables
        run.write_all(tables.users, layout.users, schemas.USERS)
        run.write_all(tables.item_ids, layout.item_ids, schemas.ITEM_IDS)
        facts = {"timestamps": clock_of(run.source)} | ({"split": "imported"} if divided.own_split else {})
        facts |= {"division": tables.division} if tables.division else {}
        for number in range(how.draws if tables.division else 1):
            rows = build.draw_again(db, how._replace(draw=number), tables) if number else tables.interactions
            run.write_all(rows, layout.draw(number).interactions, schemas.INTERACTIONS, **facts)
    if divided.rejects is not None:
        run.write(divided.rejects, layout.interaction_rejects, schemas.REJECTS)
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
    db: Db, reader: Reader, raw: Mapping[str, Path], folder: Path, params: Interactions, division: Division = DEFAULT
) -> Divided:
    """Split a reader's ratings; CSV that DuckDB refuses is rewritten row by row in `folder` first."""

    def read(files: Mapping[str, Path]) -> tuple[build.SplitTables, bool]:
        ratings = reader.ratings(files)
        if "split" in db.sql(ratings).columns:
            return build.import_split(db, ratings, params.min_rating, division), True
        cores = params.user_core, params.item_core
        return build.divide_ratings(db, ratings, *cores, division, params.min_rating), False

    try:
        return Divided(*read(raw))
    except duckdb.Error as e:
        begun = query_count(db, "SELECT count(*) FROM duckdb_tables()")
        if begun or isinstance(e, duckdb.OutOfMemoryException) or not isinstance(reader, Tabular):
            raise
        if (again := reader.repair(raw, folder)) is None:
            raise
    files, rejects = again
    tables, own = read(files)
    lost = {"unreadable_line": len(rejects)} if len(rejects) else {}
    return Divided(tables._replace(rows=tables.rows + len(rejects), drops=tables.drops | lost), own, rejects)


def measure_catalogue(reader: Reader, raw: Mapping[str, Path]) -> Catalogue:
    """Return the largest k-core of CORES with ENOUGH users and items, and its counts."""
    with tempfile.TemporaryDirectory() as folder:
        for core in CORES:
            with build.create_database(Path(folder) / "scratch", Interactions.memory_limit) as db:
                try:
                    params = Interactions(user_core=core, item_core=core)
                    tables, own, _ = split_ratings(db, reader, raw, Path(folder), params)
                except UserError:
                    if core == CORES[-1]:
                        raise
                    continue
            facts, left = tables.facts, tables.rows - sum(tables.drops.values())
            if own or core == CORES[-1] or min(facts["users"], facts["items"]) >= ENOUGH:
                break
        return Catalogue(0 if own else core, facts["users"], facts["items"], left)


def _import_published(
    source: Source, raw: Mapping[str, Path], db: Db, division: Division, min_rating: float | None
) -> build.SplitTables:
    users, items = build.load_published(db, source.reader().ratings(raw))
    names = None
    if isinstance(source, MmrecSource):
        asins = mmrec.read_asins(raw.get("metadata"), items)
    else:
        asins = mmrec.read_numbering(raw[mmrec.ITEMS], "itemID", ("asin", "parent_asin"), items)
        if mmrec.USERS in raw:
            names = mmrec.read_numbering(raw[mmrec.USERS], "userID", ("user_id", "reviewerID"), users)
    return build.import_published(db, asins, clock_of(source) != "none", min_rating, division, names)


def clock_of(source: Source) -> str:
    if isinstance(source, AmazonSource) and source.split:
        return source.split.timestamps
    return source.timestamps if isinstance(source, MmrecSource) else "unix"
