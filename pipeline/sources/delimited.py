"""Text with a delimiter, row by row by Python's csv module: items, and interactions that DuckDB refuses."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.sources.lines import LONGEST_LINE, json_object, lines, opened, refuse_many, rejects

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
    """Return the names of a file's columns, of JSON in LOOKED_AT lines or until all `wanted` are seen; or UserError."""
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
    for number, line in enumerate(lines(path), start=1):  # any line may be a reject, the first too
        with suppress(ValueError):
            keys |= dict.fromkeys(json_object(line))
        if number >= LOOKED_AT and (not keys or wanted <= keys.keys()):
            break
    if not keys:
        raise UserError(f"{path}: the file is empty, or neither JSON lines nor named .csv, .tsv or .parquet")
    return list(keys)


KEPT = 1 << 16  # bytes of a row that cannot be read
KEPT_IN_ALL = 64 << 20  # of all of them; the rest are kept without their text
BLOCK = 1 << 16  # rows written at a time


class Row(NamedTuple):
    """One row, or one line of an unreadable row."""

    line: int  # number of its first line in the file, from 1
    values: list[str] | None  # None: unreadable
    reason: str  # why
    raw: bytes  # the first KEPT bytes of an unreadable row


def rows(source: Iterator[bytes], separator: str, errors: str = "replace") -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)  # of the whole process; its default is 128 KiB
    text = _Text(source, errors)
    # strict: an unclosed quote is an error; otherwise all that follows becomes one value
    reader = csv.reader(text, delimiter=separator, strict=True)
    while True:
        text.begin()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as e:  # the reader goes on with the next line
            for offset in range(text.lines):
                yield Row(text.first + offset, None, f"not CSV: {one_line(e, 80)}", b"" if offset else bytes(text.raw))
            continue
        if values:
            yield Row(text.first, values, "", bytes(text.raw))


def repair(path: Path, wanted: Sequence[str], to: Path, most: float) -> pa.Table:
    """Write columns of a text file with a header as Parquet, all values as strings; null where a row is short.

    Return rejects, schema REJECTS: rows that are not CSV, have more values than the header, or a wanted one that is not
    UTF-8. UserError: more than the share `most` are.
    """
    source, found, kept, total = _select(path, wanted), list[Row](), 0, 0
    schema = pa.schema([(name, pa.string()) for name in wanted])
    with pq.ParquetWriter(to, schema) as file:
        while part := list(islice(source, BLOCK)):
            total += len(part)
            sound = [values for row, values in part if row.values is not None]
            columns = [pa.array([values[i] for values in sound], pa.string()) for i in range(len(wanted))]
            file.write_table(pa.table(columns, schema=schema))
            for row in (row for row, _ in part if row.values is None):
                kept += len(row.raw)
                found.append(row if kept <= KEPT_IN_ALL else row._replace(raw=b""))
    reasons = [(row.line, row.reason) for row in found]
    refuse_many(path, "rows", reasons, total, most, "the source's max_reject_share")
    return rejects(path.name, ((row.line, row.reason, row.raw) for row in found))


def _select(path: Path, wanted: Sequence[str]) -> Iterator[tuple[Row, list[str | None]]]:
    source = rows(lines(path), delimiter(path) or ",", "surrogateescape")
    first = next(source, None)
    header = first.values if first is not None and first.values else []
    if absent := [name for name in wanted if name not in header]:
        raise UserError(f"{path}: its first line is not CSV: no column '{absent[0]}'; end it with a line feed")
    places = [header.index(name) for name in wanted]
    for row in source:
        values = row.values or []
        found = [values[at] if at < len(values) else None for at in places]
        if any(values[len(header) :]):
            yield row._replace(values=None, reason=f"more than {len(header)} values"), found
        elif not (text := "".join(filter(None, found))).isascii() and any("\udc80" <= c <= "\udcff" for c in text):
            yield row._replace(values=None, reason="not UTF-8"), found
        else:
            yield row, found


class _Text:
    """Lines for the csv module, as text; a row may span several, of LONGEST_LINE bytes in all."""

    def __init__(self, source: Iterator[bytes], errors: str) -> None:
        self._source, self._errors = source, errors
        self.first, self.lines, self.size, self.raw = 1, 0, 0, bytearray()

    def begin(self) -> None:
        self.first += self.lines
        self.lines, self.size, self.raw = 0, 0, bytearray()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.lines += 1
        self.size += len(line)
        self.raw += line[: KEPT - len(self.raw)]
        if self.size > LONGEST_LINE:
            raise csv.Error("row too long; is a quote not closed?")
        return line.decode("utf-8", errors=self._errors)
