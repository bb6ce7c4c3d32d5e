"""Interactions that DuckDB's fast reader refuses are read again row by row; what cannot be read is a reject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from pipeline.interactions.build import SplitTables
from pipeline.sources.base import Reader
from pipeline.sources.delimited import Mended


@runtime_checkable
class Mender(Protocol):
    """A reader that can read a file row by row."""

    def mended(self, raw: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], Mended] | None:
        """Return the files with the interactions written anew into a folder; None where that cannot help."""


def split(
    db: duckdb.DuckDBPyConnection,
    reader: Reader,
    raw: Mapping[str, Path],
    folder: Path,
    divide: Callable[[str], SplitTables],
) -> tuple[SplitTables, pa.Table | None]:
    """Return the tables of interactions, and the rows that could not be read, table REJECTS; None if all could.

    Args:
        db: see `build.database`.
        reader: of the source.
        raw: role -> file.
        folder: for what is written on the way.
        divide: makes the tables from the reader's SQL, which it runs first.
    """
    try:
        return divide(reader.ratings(raw)), None
    except duckdb.Error as e:
        begun = db.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]
        if begun or isinstance(e, duckdb.OutOfMemoryException) or not isinstance(reader, Mender):
            raise
        if (again := reader.mended(raw, folder)) is None:
            raise
    files, mended = again
    tables = divide(reader.ratings(files))
    lost = {"unreadable_line": len(mended.rejects)} if len(mended.rejects) else {}
    return tables._replace(rows=tables.rows + len(mended.rejects), drops=tables.drops | lost), mended.rejects
