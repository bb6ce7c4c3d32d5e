"""Raw files as tables of strings in SQL: unreadable values are null, the file's order is kept.

Casts belong around `stripped(...)`: DuckDB 2.0 moves a bare try_cast into its CSV reader, where a bad value is an error
and not a null.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def quoted(value: object) -> str:
    """Return a string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def name(column: str) -> str:
    """Return a column's name as an identifier."""
    return '"' + column.replace('"', '""') + '"'


def stripped(text: str) -> str:
    """Return a column without spaces at its ends, null if nothing is left. Most values have none, and trim is slow."""
    return f"nullif(CASE WHEN contains({text}, ' ') THEN trim({text}) ELSE {text} END, '')"


def read_csv(path: Path, columns: Iterable[str], header: bool, delimiter: str = ",", quotes: bool = False) -> str:
    """Return a table function over a CSV file, gzipped or not.

    Args:
        path: the file.
        columns: names, in the file's order.
        header: whether its first line is skipped.
        delimiter: between values.
        quotes: whether values may be in double quotes.
    """
    quote = '"' if quotes else ""
    return (
        f"read_csv({quoted(path)}, header={str(header).lower()}, auto_detect=false, delim={quoted(delimiter)}, "
        f"quote='{quote}', escape='{quote}', null_padding=true, columns={_strings(columns)})"
    )


def read_lines(path: Path, columns: Iterable[str]) -> str:
    """Return a table function over some fields of a file of JSON lines, gzipped or not."""
    return (
        f"read_json({quoted(path)}, format='newline_delimited', ignore_errors=true, maximum_object_size=16777216, "
        f"columns={_strings(columns)})"
    )


def _strings(columns: Iterable[str]) -> str:
    return "{" + ", ".join(f"{quoted(c)}: 'VARCHAR'" for c in columns) + "}"
