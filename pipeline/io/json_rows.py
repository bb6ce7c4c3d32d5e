"""Read rows of Parquet, CSV and JSON lines as JSON objects."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from alignrec.pipeline.io import csv_rows, parquet
from alignrec.pipeline.io.csv_rows import CsvRow, find_delimiter
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.text import RejectedRow, read_lines

UNREADABLE = b"\0unreadable: "  # cannot begin a JSON document
LONG_NUMBER = re.compile(rb"[0-9]{19}")
ROWS_INSPECTED = 1000  # JSON lines inspected for keys, as each line may have only some


def column_names(path: Path, required: Iterable[str] = ()) -> list[str]:
    """Return the column names of a file.

    For JSON, the keys seen until all of `required` are found.
    """
    if path.suffix == ".parquet":
        return parquet.column_names(path)
    if (delimiter := find_delimiter(path)) is not None:
        return csv_rows.column_names(path, delimiter)

    keys: dict[str, None] = {}
    missing = set(required)
    for number, line in enumerate(read_lines(path), start=1):
        with suppress(ValueError):  # any line may be unreadable, even the first
            keys |= dict.fromkeys(json_object(line))
        if number >= ROWS_INSPECTED and (not keys or missing <= keys.keys()):
            break
    if not keys:
        raise UserError(
            f"{path}: the file is empty, or neither JSON lines nor named .csv, .tsv or .parquet"
        )
    return list(keys)


def refuse_repeated(path: Path, columns: Sequence[str], names: Iterable[str]) -> None:
    """Raise UserError if one of the names is that of several columns."""
    for name in names:
        if columns.count(name) > 1:
            raise UserError(f"{path}: two columns are called '{one_line(name, 64)}'; rename one")


def json_lines(path: Path) -> Iterator[bytes]:
    """Yield each row of Parquet, or of a text file with a header, as JSON.

    Lines of a JSON file are passed through.
    """
    if path.suffix == ".parquet":
        for batch in parquet.read_batches(path):
            yield from _batch_as_json(batch)
    elif (delimiter := find_delimiter(path)) is not None:
        yield from _csv_as_json(path, delimiter)
    else:
        yield from read_lines(path)


def _csv_as_json(path: Path, delimiter: str) -> Iterator[bytes]:
    rows = csv_rows.read_rows(read_lines(path), delimiter)
    header = next(rows, None)
    if isinstance(header, RejectedRow):
        yield mark_unreadable(header.reason)
    for row in rows:
        if isinstance(row, RejectedRow):
            yield mark_unreadable(row.reason)
        elif isinstance(header, CsvRow):
            yield _row_as_json(header.values, row)
        else:
            yield mark_unreadable("no header")


def _row_as_json(header: list[str], row: CsvRow) -> bytes:
    width = len(header)
    values = dict(zip_longest(header, row.values[:width]))
    if extra := row.values[width:]:
        return orjson.dumps(values | {"_extra": extra})
    return orjson.dumps(values)


def _batch_as_json(batch: pa.RecordBatch) -> list[bytes]:
    try:
        rows = parquet.decode_binary(batch).to_pylist()
        return [orjson.dumps(row, default=str) for row in rows]
    except (ValueError, OverflowError, TypeError, pa.ArrowException) as e:
        # such as a date outside Python's range
        if len(batch) == 1:
            return [mark_unreadable(f"not JSON: {e}")]
    lines = []
    for row in range(len(batch)):
        lines += _batch_as_json(batch.slice(row, 1))
    return lines


def mark_unreadable(reason: str) -> bytes:
    """Return a placeholder line for a row without a JSON form.

    `json_object` raises `reason` for it.
    """
    return UNREADABLE + reason[:200].encode("utf-8", "replace")


def json_object(line: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError with a short message if that fails."""
    if line.startswith(UNREADABLE):
        reason = line[len(UNREADABLE) :].decode("utf-8", "replace")
        raise ValueError(one_line(reason, 100))
    try:
        return require_dict(_parse_json(line))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_json(line: bytes) -> Any:
    try:
        record = orjson.loads(line)
        # orjson converts integers beyond 64 bits, which may be identifiers, to floats
        return json.loads(line) if LONG_NUMBER.search(line) else record
    except ValueError:
        if b"NaN" not in line and b"Infinity" not in line:
            raise ValueError("not JSON") from None
    try:
        # Python's constants as null
        record = json.loads(line.decode(), parse_constant=lambda _: None)
        json.dumps(
            record, ensure_ascii=False
        ).encode()  # refuses lone surrogates, which Arrow cannot store
    except ValueError:
        raise ValueError("not JSON") from None
    return record


def require_dict(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record
