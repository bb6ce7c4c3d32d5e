"""Opens DuckDB databases."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory. A date without a zone is in UTC there, wherever the machine is."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET enable_progress_bar = false")
        yield db
