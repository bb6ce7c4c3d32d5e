"""Formats and columns of tables in files: Parquet, text with a header and a delimiter, JSON lines."""

import csv
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError, one_line
from pipeline.sources.lines import lines, opened
from pipeline.sources.objects import json_object

LOOKED_AT = 1000  # lines of JSON, each of which may lack a column
LONGEST_HEADER = 100_000  # bytes; Python's csv module takes no longer field
DELIMITERS = (",", "\t", ";", "|")  # a header with none of them has one column


def delimiter(path: Path) -> str | None:
    """Return the separator of a text file, in `.csv` the first of DELIMITERS in the header; None: Parquet, JSON."""
    if ".tsv" in path.suffixes:
        return "\t"
    if ".csv" not in path.suffixes:
        return None
    header = first_line(path)
    return next((d for d in DELIMITERS if d in header), DELIMITERS[0])


def column_names(path: Path, wanted: Iterable[str] = ()) -> list[str]:
    """Return the names of a file's columns: from its schema, its header, or LOOKED_AT lines of JSON.

    JSON is read on until all `wanted` are seen. UserError: empty, damaged, or of no known format.
    """
    if path.suffix == ".parquet":
        try:
            return list(pq.read_schema(path).names)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, UnicodeDecodeError, OSError) as e:
            raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None
    if (separator := delimiter(path)) is not None:
        try:
            return next(csv.reader([first_line(path)], delimiter=separator))
        except csv.Error as e:  # such as a carriage return within it
            raise UserError(
                f"{path}: its first line is not CSV: {one_line(e, 100)}; end lines with a line feed"
            ) from None
    return _keys(path, set(wanted))


def first_line(path: Path) -> str:
    with opened(path) as f:
        line = f.readline(LONGEST_HEADER + 1).decode("utf-8", errors="replace").rstrip("\r\n")
    if not line.strip():
        raise UserError(f"{path}: the file is empty; expected a first line with the names of the columns")
    if len(line) > LONGEST_HEADER:
        raise UserError(f"{path}, line 1: longer than {LONGEST_HEADER:,} bytes; expected names of columns")
    return line


def _keys(path: Path, wanted: set[str]) -> list[str]:
    keys: dict[str, None] = {}
    rest = lines(path)
    first = next(rest, b"")
    if not first.strip():
        raise UserError(f"{path}: the file is empty; expected JSON lines, or a name that ends in .csv or .parquet")
    for number, line in enumerate(chain([first], rest), start=1):  # any line may be a reject, the first too
        with suppress(ValueError):
            keys |= dict.fromkeys(json_object(line))
        if number >= LOOKED_AT and (not keys or wanted <= keys.keys()):
            break
    if not keys:
        raise UserError(f"{path}: not .parquet, .csv or .tsv, and its first line is not a JSON object")
    return list(keys)
