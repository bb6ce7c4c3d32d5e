"""Stage `interactions`: read a source's ratings, split them and write the tables."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.published import detect_clock, import_published, load_published
from alignrec.pipeline.dataset.split_sql import DEFAULT, Db, Division, query_count
from alignrec.pipeline.dataset.split_tables import (
    SplitTables,
    create_database,
    divide_ratings,
    draw_again,
    import_split,
)
from alignrec.pipeline.io.sql import is_disk_error, quote_text
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.sources import mmrec
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Reader, downloaded_files
from alignrec.pipeline.sources.tabular import Tabular
from alignrec.pipeline.vectors.mapping_files import read_numbering

MAX_SHARE_BELOW_CORE = 0.5  # share of ratings below the k-core above which the stage warns
CLOCK_NOTES = {
    "unix": "the .inter file has Unix seconds, so zero-shot is asked; `timestamps: none` ignores "
    "them",
    "none": "the .inter file has no Unix seconds, so zero-shot is skipped; if its numbers are "
    "positions in a user's sequence, set `timestamps: order`",
}


def write_tables(run: Run) -> dict[str, int]:
    """Write all tables of the stage, and return the counts of users, items and rows."""
    params, layout = run.params[Interactions], run.layout
    raw = downloaded_files(layout.sources)
    division = Division(
        params.protocol, run.seed("split"), params.cold_share, params.most_train, params.draws
    )
    folder = run.folder / ".scratch"
    with create_database(folder, params.memory_limit) as db:
        if run.source.has_split:
            tables, clock = _import_published(run, raw, db, division)
        else:
            reader = run.source.reader()
            tables = split_ratings(db, reader, raw, folder, params, division)
            clock = reader.clock
        _write_queries(run, db, tables, division, clock)

    if tables.rejects is not None:
        run.write(tables.rejects, layout.interaction_rejects, schemas.REJECTS)
    _describe_tables(run, tables)
    return tables.facts


def _write_queries(run: Run, db: Db, tables: SplitTables, division: Division, clock: str) -> None:
    """Write the tables, with the interactions of each draw of the split."""
    layout = run.layout
    run.write_all(tables.users, layout.users, schemas.USERS)
    run.write_all(tables.item_ids, layout.item_ids, schemas.ITEM_IDS)

    facts = {"timestamps": clock}
    if tables.own_split:
        facts["split"] = "imported"
    if tables.division:
        facts["division"] = tables.division
    run.write_all(tables.interactions, layout.interactions, schemas.INTERACTIONS, **facts)
    for number in range(1, division.draws if tables.division else 1):
        rows = draw_again(db, division._replace(draw=number), tables)
        path = replace(layout, drawn=number).interactions
        run.write_all(rows, path, schemas.INTERACTIONS, **facts)


def _describe_tables(run: Run, tables: SplitTables) -> None:
    run.rows_in, run.rows_out = tables.rows, tables.rows_left
    for reason, n in tables.drops.items():
        run.count(reason, n)
    run.note(**tables.facts)

    below = tables.drops.get("below_k_core", 0)
    if below > MAX_SHARE_BELOW_CORE * tables.rows:
        run.warn(
            f"{below:,} of {tables.rows:,} ratings are of users or items with too few; "
            "lower interactions.user_core and item_core if these should count"
        )


def split_ratings(
    db: Db,
    reader: Reader,
    raw: Mapping[str, Path],
    folder: Path,
    params: Interactions,
    division: Division = DEFAULT,
) -> SplitTables:
    """Split a reader's ratings.

    CSV that DuckDB refuses is rewritten row by row in `folder` first.
    """
    try:
        return _split_files(db, reader, raw, params, division)
    except duckdb.Error as e:
        is_begun = query_count(db, "SELECT count(*) FROM duckdb_tables()") > 0
        is_of_machine = isinstance(e, duckdb.OutOfMemoryException) or is_disk_error(e)
        if is_begun or is_of_machine or not isinstance(reader, Tabular):
            raise
        repaired = reader.repair(raw, folder)
        if repaired is None:
            raise

    files, rejects = repaired
    tables = _split_files(db, reader, files, params, division)
    return _add_rejects(tables, "unreadable_line", rejects)


def _add_rejects(tables: SplitTables, reason: str, rejects: pa.Table) -> SplitTables:
    n = len(rejects)
    drops = tables.drops | ({reason: n} if n else {})
    if tables.rejects is not None:
        rejects = pa.concat_tables([tables.rejects, rejects])
    return tables._replace(rows=tables.rows + n, drops=drops, rejects=rejects)


def _split_files(
    db: Db, reader: Reader, files: Mapping[str, Path], params: Interactions, division: Division
) -> SplitTables:
    ratings = reader.ratings(files)
    undated = reader.max_undated
    if "split" in db.sql(ratings).columns:
        tables = import_split(db, ratings, params.min_rating, division, undated)
    else:
        cores = params.user_core, params.item_core
        tables = divide_ratings(db, ratings, *cores, division, params.min_rating, undated)

    if undated is None or not query_count(db, "SELECT count(*) FROM undated"):
        return tables
    file = quote_text(files["interactions"].name)
    rows = db.sql(f"SELECT {file} AS file, line, reason, raw FROM undated").to_arrow_table()
    return _add_rejects(tables, "time_of_another_year", rows)


def _import_published(
    run: Run, raw: Mapping[str, Path], db: Db, division: Division
) -> tuple[SplitTables, str]:
    """Return the tables of a published split, and its clock, as given or detected."""
    source = run.source
    file = source.split if isinstance(source, AmazonSource) else source
    assert isinstance(file, mmrec.InterFile)
    n_users, n_items = load_published(db, source.reader().ratings(raw))
    clock: str | None = file.timestamps
    if clock is None:
        clock = detect_clock(db)
        print(f"{run.label}: {CLOCK_NOTES[clock]}", flush=True)

    if mmrec.SPLIT_ITEMS_ROLE in raw:
        asins = read_numbering(raw[mmrec.SPLIT_ITEMS_ROLE], "itemID", mmrec.ITEM_NAMES, n_items)
    else:
        asins = mmrec.read_asins(raw.get("metadata"), n_items)
    users = None
    if mmrec.SPLIT_USERS_ROLE in raw:
        users = read_numbering(raw[mmrec.SPLIT_USERS_ROLE], "userID", mmrec.USER_NAMES, n_users)

    min_rating = run.params[Interactions].min_rating
    keep_time = clock != "none"
    return import_published(db, asins, keep_time, min_rating, division, users), clock
