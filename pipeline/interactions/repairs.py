"""Row-by-row reading of interactions that DuckDB's fast reader refuses; unreadable rows are rejects."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from pipeline.interactions.build import Db, SplitTables
from pipeline.sources.base import Reader
from pipeline.sources.delimited import Repaired


@runtime_checkable
class Mender(Protocol):
    """A reader that can read a file row by row."""

    def repair(self, raw: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], Repaired] | None:
        """Return the files, with the interactions rewritten into a folder; None where that cannot help."""


class Divided(NamedTuple):
    """Interactions as the stage writes them."""

    tables: SplitTables
    own_split: bool  # whether the split came with the ratings
    rejects: pa.Table | None  # schema REJECTS; None if all rows could be read at once


def split(
    db: Db, reader: Reader, raw: Mapping[str, Path], folder: Path, divide: Callable[[str, bool], SplitTables]
) -> Divided:
    """Return the tables of interactions, read row by row into `folder` where need be.

    `divide` makes them from the reader's SQL, which it runs first, and whether that has a split of its own.
    """

    def read(files: Mapping[str, Path]) -> tuple[SplitTables, bool]:
        ratings = reader.ratings(files)
        own = "split" in db.sql(ratings).columns
        return divide(ratings, own), own

    try:
        return Divided(*read(raw), None)
    except duckdb.Error as e:
        begun = db.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]
        if begun or isinstance(e, duckdb.OutOfMemoryException) or not isinstance(reader, Mender):
            raise
        if (again := reader.repair(raw, folder)) is None:
            raise
    files, repaired = again
    tables, own = read(files)
    lost = {"unreadable_line": len(repaired.rejects)} if len(repaired.rejects) else {}
    tables = tables._replace(rows=tables.rows + len(repaired.rejects), drops=tables.drops | lost)
    return Divided(tables, own, repaired.rejects)
