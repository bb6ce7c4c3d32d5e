"""Text with a delimiter, row by row as Python's csv module reads it: items, and interactions that DuckDB refuses.

A row that cannot be read is said to be so, with its reason; so is each line that an unclosed quote swallows.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError, one_line
from pipeline.sources.header import delimiter
from pipeline.sources.lines import LONGEST_LINE, lines, refuse_many, rejects

HEAD, HEAD_BYTES = 1000, 4 << 20  # lines, and bytes of them, that tell how quotes within quotes are written
KEPT = 1 << 16  # bytes of a row that cannot be read
KEPT_IN_ALL = 64 << 20  # of all of them; the rest are kept without their text
BLOCK = 1 << 16  # rows written at a time


class Row(NamedTuple):
    """One row, or one line of what is none."""

    line: int  # number of its first line in the file, from 1
    values: list[str] | None  # None: it cannot be read
    reason: str  # why
    raw: bytes  # of a row that cannot be read its first KEPT bytes


class Repaired(NamedTuple):
    """What could be read of a file."""

    rows: int  # in all, unreadable ones included
    rejects: pa.Table  # schema REJECTS


def rows(source: Iterator[bytes], separator: str, errors: str = "replace") -> Iterator[Row]:
    """Yield the rows of a text, its header first; blank lines are none. Time grows with the text, memory with a row."""
    csv.field_size_limit(LONGEST_LINE)  # of the whole process; its default is 128 KiB
    head, size = [], 0
    for line in islice(source, HEAD):
        head.append(line)
        size += len(line)
        if size > HEAD_BYTES:
            break
    text = _Text(chain(head, source), errors)
    reader = _reader(text, separator, _escape(head, separator))
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


def repair(path: Path, wanted: Sequence[str], to: Path, most: float) -> Repaired:
    """Write some columns of a text file with a header as Parquet, all values as strings; null where a row is short.

    A row cannot be read if it is not CSV, has values beyond the last column, or a wanted one is not UTF-8.
    UserError if more than the share `most` are so.
    """
    table, found, kept = _Columns(path, wanted), list[Row](), 0
    total = 0
    schema = pa.schema([(name, pa.string()) for name in wanted])
    with pq.ParquetWriter(to, schema) as file:
        for row in table.rows():
            total += 1
            if row.values is None:
                kept += len(row.raw)
                found.append(row if kept <= KEPT_IN_ALL else row._replace(raw=b""))
            if len(table.values[0]) == BLOCK:
                file.write_table(table.taken(schema))
        file.write_table(table.taken(schema))
    reasons = [(row.line, row.reason) for row in found]
    refuse_many(path, "rows", reasons, total, most, "the source's max_reject_share")
    return Repaired(total, rejects(path.name, ((row.line, row.reason, row.raw) for row in found)))


def first(path: Path, wanted: Sequence[str], n: int) -> pa.Table:
    table = _Columns(path, wanted)
    for _ in islice(table.rows(), n):
        pass
    return table.taken(pa.schema([(name, pa.string()) for name in wanted]))


class _Columns:
    """Gathers the wanted columns of rows."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        self.path, self.wanted, self.values = path, wanted, [list[str | None]() for _ in wanted]

    def rows(self) -> Iterator[Row]:
        """Yield each row after the header; what is wanted of those that can be read is in `values`."""
        source = rows(lines(self.path), delimiter(self.path) or ",", "surrogateescape")
        first = next(source, None)
        header = first.values if first is not None and first.values else []
        if absent := [name for name in self.wanted if name not in header]:
            raise UserError(f"{self.path}: its first line is not CSV: no column '{absent[0]}'; end it with a line feed")
        places = [header.index(name) for name in self.wanted]
        for row in source:
            read = row
            if row.values is not None and any(row.values[len(header) :]):
                read = row._replace(values=None, reason=f"more than {len(header)} values")
            elif row.values is not None:
                found = [row.values[at] if at < len(row.values) else None for at in places]
                if all(map(_is_utf8, found)):
                    for column, value in zip(self.values, found, strict=True):
                        column.append(value)
                else:
                    read = row._replace(values=None, reason="not UTF-8")
            yield read

    def taken(self, schema: pa.Schema) -> pa.Table:
        table = pa.table([pa.array(column, pa.string()) for column in self.values], schema=schema)
        self.values = [[] for _ in self.wanted]
        return table


def _is_utf8(value: str | None) -> bool:
    if value is None or value.isascii():
        return True
    return not any("\udc80" <= character <= "\udcff" for character in value)


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


def _reader(text: Iterable[str], separator: str, escape: str | None) -> Iterator[list[str]]:
    # strict: a quote that is not closed is an error; else it takes all that follows for one value, without a word
    return csv.reader(text, delimiter=separator, strict=True, escapechar=escape)


def _escape(head: Sequence[bytes], separator: str) -> str | None:
    """Return a backslash if quotes within quotes are written so: fewer rows of the first ones cannot be read then."""
    if not any(b'\\"' in line for line in head):
        return None
    return "\\" if _unreadable(head, separator, "\\") < _unreadable(head, separator, None) else None


def _unreadable(head: Sequence[bytes], separator: str, escape: str | None) -> int:
    text = _Text(iter(head), "replace")
    reader, count = _reader(text, separator, escape), 0
    while True:
        text.begin()
        try:
            next(reader)
        except StopIteration:
            return count
        except csv.Error:
            count += text.lines
