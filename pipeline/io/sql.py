"""Read raw files as SQL tables of strings, in file order, with null for unreadable values."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignrec.pipeline.io.errors import one_line
from alignrec.pipeline.io.text import open_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_JSON_BYTES = 16 << 20  # of one object
# white space of Python's str.strip: U+0009 .. U+3000
MAX_WHOLE = 1 << 53  # floats from here on round integers
WHITE_SPACE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())


def quote_text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def parquet_sql(path: Path, columns: Iterable[str]) -> str:
    """Return SQL for the rows of Parquet, whose columns get the names `columns` by position.

    By name, DuckDB does not tell `user` from `USER`.
    """
    names = ", ".join(f'"{column}"' for column in columns)
    return f"read_parquet({_quote_path(path)}, hive_partitioning=false) AS t({names})"


def numbered_columns(n: int) -> list[str]:
    return [f"c{position}" for position in range(n)]


def _quote_path(path: Path) -> str:
    """Quote a path whose characters *, ? and [ are no pattern."""
    return quote_text(re.sub(r"([*?\[])", r"[\1]", str(path)))


# Casts must wrap `trim_sql` or `strip_sql`: DuckDB 2.0 pushes a bare try_cast into its CSV reader,
# where a bad value is an error instead of null.
def trim_sql(text: str) -> str:
    """Return SQL that strips spaces from a number or time, null if empty.

    See `strip_sql` for identifiers.
    """
    return f"nullif(CASE WHEN contains({text}, ' ') THEN trim({text}) ELSE {text} END, '')"


def rating_sql(text: str) -> str:
    """Return SQL that reads a number such as 4.5 or 4,5; null for others and for infinity."""
    # of two decimals at most, as 1,000 is a thousand
    pointed = f"regexp_replace({text}, '^([0-9]+),([0-9]{{1,2}})$', '\\1.\\2')"
    value = f"coalesce(try_cast({text} AS FLOAT), try_cast({pointed} AS FLOAT))"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def whole_sql(text: str, kind: str = "BIGINT") -> str:
    """Return SQL that reads an integer; null for 1.5, which a cast would round."""
    value = f"try_cast({text} AS {kind})"
    return f"CASE WHEN {value} = try_cast({text} AS DOUBLE) THEN {value} END"


def csv_sql(
    path: Path, columns: Iterable[str], header: bool, delimiter: str = ",", quotes: bool = False
) -> str:
    quote = '"' if quotes else ""
    options = [
        f"header={str(header).lower()}",
        "auto_detect=false",
        f"delim={quote_text(delimiter)}",
        "null_padding=true",
        f"quote='{quote}'",
        f"escape='{quote}'",
    ]
    return _scan_sql("read_csv", path, columns, options)


def json_sql(path: Path, columns: Iterable[str], typed: Collection[str] = ()) -> str:
    """Return SQL for the rows of JSON lines, as texts; of columns `typed` as JSON."""
    options = [
        "format='newline_delimited'",
        "ignore_errors=true",
        f"maximum_object_size={MAX_JSON_BYTES}",
    ]
    return _scan_sql("read_json", path, columns, options, typed)


def _scan_sql(
    function: str,
    path: Path,
    columns: Iterable[str],
    options: Iterable[str],
    typed: Collection[str] = (),
) -> str:
    kinds = {column: "JSON" if column in typed else "VARCHAR" for column in columns}
    with open_text(path):  # raises UserError unless it is UTF-8
        listed = ", ".join(f"{quote_text(column)}: '{kind}'" for column, kind in kinds.items())
    options = ["hive_partitioning=false", *options, f"columns={{{listed}}}"]
    arguments = ", ".join([_quote_path(path), *options])
    return f"{function}({arguments})"


def strip_sql(text: str) -> str:
    """Return SQL that strips white space as `str.strip` does; null if nothing is left."""
    text = f"({text})"
    white = f"'{WHITE_SPACE}'"
    # trim is slow, so a cheap test selects the few values that may need it: not ASCII, or blank at
    # an end
    is_suspect = f"strlen({text}) <> length({text}) OR {text} < '!' OR {text}[-1] < '!'"
    has_white = f"contains({white}, {text}[1]) OR contains({white}, {text}[-1])"
    trimmed = f"CASE WHEN {has_white} THEN trim({text}, {white}) ELSE {text} END"
    return f"nullif(CASE WHEN {is_suspect} THEN {trimmed} ELSE {text} END, '')"


def identifier_of(value: Any) -> str | None:
    """Return an identifier without white space around it; None if it is missing.

    The number 5.0 is 5. Raises ValueError for a number that is not whole.
    """
    if value is None or isinstance(value, (bool, list, dict)) or value != value:
        return None
    if isinstance(value, float) and not (value.is_integer() and abs(value) < MAX_WHOLE):
        raise ValueError(f"the identifier {value} is neither a text nor a whole number")
    return str(int(value) if isinstance(value, float) else value).strip() or None


@contextmanager
def open_database() -> Iterator[DuckDBPyConnection]:
    """Open a database in memory; an error of the disk in its block becomes an OSError."""
    import duckdb  # optional dependency: a light install reads parameters without it

    try:
        with duckdb.connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            db.execute("SET enable_progress_bar = false")
            yield db
    except duckdb.IOException as e:
        if not is_disk_error(e):
            raise
        raise OSError(errno.EIO, one_line(e)) from None


def is_disk_error(error: Exception) -> bool:
    """Return whether DuckDB failed to read a file, rather than to understand what is in it."""
    return os.strerror(errno.EIO) in str(error)
