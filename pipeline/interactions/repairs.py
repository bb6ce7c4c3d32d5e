"""Splits the interactions of a source; those that DuckDB's fast reader refuses are read row by row."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.interactions import build
from pipeline.interactions.division import Db, Division, count
from pipeline.interactions.params import Interactions
from pipeline.sources.base import Reader
from pipeline.sources.tabular import Tabular

# least interactions of a user and of an item, tried in this order; 5 is what published tables have
CORES = (5, 3, 2, 1)
ENOUGH = 10  # users, and items, that a core must leave


class Divided(NamedTuple):
    """Interactions as the stage writes them."""

    tables: build.SplitTables
    own_split: bool  # whether the split came with the ratings
    rejects: pa.Table | None  # schema REJECTS; None if all rows could be read at once


class Catalogue(NamedTuple):
    """Counts after filtering."""

    core: int  # least interactions of a user and of an item; 0 where the split is the source's own
    users: int
    items: int
    interactions: int


def split(
    db: Db, reader: Reader, raw: Mapping[str, Path], folder: Path, divide: Callable[[str, bool], build.SplitTables]
) -> Divided:
    """Return the tables of interactions, read row by row into `folder` where need be.

    `divide` makes them from the reader's SQL, which it runs first, and whether that has a split of its own.
    """

    def read(files: Mapping[str, Path]) -> tuple[build.SplitTables, bool]:
        ratings = reader.ratings(files)
        own = "split" in db.sql(ratings).columns
        return divide(ratings, own), own

    try:
        return Divided(*read(raw), None)
    except duckdb.Error as e:
        begun = count(db, "SELECT count(*) FROM duckdb_tables()")
        if begun or isinstance(e, duckdb.OutOfMemoryException) or not isinstance(reader, Tabular):
            raise
        if (again := reader.repair(raw, folder)) is None:
            raise
    files, rejects = again
    tables, own = read(files)
    lost = {"unreadable_line": len(rejects)} if len(rejects) else {}
    tables = tables._replace(rows=tables.rows + len(rejects), drops=tables.drops | lost)
    return Divided(tables, own, rejects)


def measure_catalogue(reader: Reader, raw: Mapping[str, Path]) -> Catalogue:
    """Return the largest core of CORES that leaves enough, and what it leaves; UserError if nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        for core in CORES:
            with build.database(Path(folder) / "scratch", Interactions.memory_limit) as db:
                try:
                    tables, own, _ = split(db, reader, raw, Path(folder), partial(_divide, db, core))
                except UserError:
                    if core == CORES[-1]:
                        raise
                    continue
            facts, left = tables.facts, tables.rows - sum(tables.drops.values())
            if own or core == CORES[-1] or min(facts["users"], facts["items"]) >= ENOUGH:
                break
        return Catalogue(0 if own else core, facts["users"], facts["items"], left)


def _divide(db: Db, core: int, ratings: str, own: bool) -> build.SplitTables:
    return build.import_split(db, ratings) if own else build.split(db, ratings, core, core, Division())
