"""Read text files as CSV, row by row; rows that cannot be read are kept as rejects."""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.text import (
    MAX_LINE_BYTES,
    MAX_RAW_BYTES,
    RejectedRow,
    first_line,
    read_lines,
    refuse_many,
    reject_table,
)

DELIMITERS = (",", "\t", ";", "|")  # if none occurs in the header, the file has one column
MAX_RAW_BYTES_IN_ALL = 64 << 20  # of all rejects; later ones are kept without their text
ROWS_PER_WRITE = 1 << 16


class CsvRow(NamedTuple):
    """A row of a text file, which may span lines."""

    line: int  # line number of its first line, from 1
    values: list[str]
    raw: bytes  # the first MAX_RAW_BYTES bytes


def find_delimiter(path: Path) -> str | None:
    """Return the delimiter of a .csv, .tsv or .inter file; None for Parquet and JSON."""
    endings = [ending.lower() for ending in path.suffixes]
    if ".tsv" in endings or ".inter" in endings:
        return "\t"
    if ".csv" not in endings:
        return None
    header = first_line(path)
    return next((mark for mark in DELIMITERS if mark in header), DELIMITERS[0])


def column_names(path: Path, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([first_line(path)], delimiter=delimiter))
    except csv.Error as e:  # such as a carriage return in the header
        raise UserError(
            f"{path}: its first line is not CSV: {one_line(e, 100)}; end lines with a line feed"
        ) from None


def read_rows(
    lines: Iterator[bytes], delimiter: str, errors: str = "replace"
) -> Iterator[CsvRow | RejectedRow]:
    csv.field_size_limit(MAX_LINE_BYTES)  # process-wide; the default is 128 KiB
    text = _RowText(lines, errors)
    # strict: an unclosed quote is an error; otherwise the rest of the file would become one value
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        text.start_row()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            # the reader resumes at the next line, so all lines read so far are rejects
            reason = f"not CSV: {one_line(e, 80)}"
            for offset in range(text.lines):
                yield RejectedRow(text.first + offset, reason, b"" if offset else bytes(text.raw))
        else:
            if values:
                yield CsvRow(text.first, values, bytes(text.raw))


class _RowText:
    """Iterator of decoded lines for the csv module, which limits a row to MAX_LINE_BYTES."""

    def __init__(self, lines: Iterator[bytes], errors: str) -> None:
        self._lines = lines
        self._errors = errors
        self.first = 1  # line number of the row's first line
        self.lines = 0  # lines of the row so far
        self._size = 0  # bytes of the row so far
        self.raw = bytearray()

    def start_row(self) -> None:
        self.first += self.lines
        self.lines = 0
        self._size = 0
        self.raw = bytearray()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.lines += 1
        self._size += len(line)
        self.raw += line[: MAX_RAW_BYTES - len(self.raw)]
        if self._size > MAX_LINE_BYTES:
            raise csv.Error("row too long; is a quote not closed?")
        return line.decode("utf-8", errors=self._errors)


def repair_rows(path: Path, columns: Sequence[str], to: Path, max_share: float) -> pa.Table:
    """Write columns of a text file as Parquet strings.

    Return unreadable rows as a table REJECTS.
    """
    source = _select_columns(path, columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    rejects: list[RejectedRow] = []
    raw_bytes = total = 0
    with pq.ParquetWriter(to, schema) as file:
        while rows := list(islice(source, ROWS_PER_WRITE)):
            total += len(rows)
            sound = [row for row in rows if not isinstance(row, RejectedRow)]
            arrays = [pa.array([row[i] for row in sound], pa.string()) for i in range(len(columns))]
            file.write_table(pa.table(arrays, schema=schema))

            for row in rows:
                if isinstance(row, RejectedRow):
                    raw_bytes += len(row.raw)
                    fits = raw_bytes <= MAX_RAW_BYTES_IN_ALL
                    rejects.append(row if fits else row._replace(raw=b""))
    refuse_many(path, "rows", rejects, total, max_share, "the source's max_reject_share")
    return reject_table(path.name, rejects)


def _select_columns(path: Path, columns: Sequence[str]) -> Iterator[list[str | None] | RejectedRow]:
    rows = read_rows(read_lines(path), find_delimiter(path) or ",", "surrogateescape")
    first = next(rows, None)
    header = first.values if isinstance(first, CsvRow) else []
    if absent := [name for name in columns if name not in header]:
        raise UserError(
            f"{path}: its first line is not CSV: no column '{absent[0]}'; end it with a line feed"
        )

    places = [header.index(name) for name in columns]
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
        elif any(row.values[len(header) :]):
            yield RejectedRow(row.line, f"more than {len(header)} values", row.raw)
        else:
            values = [row.values[place] if place < len(row.values) else None for place in places]
            is_utf8 = all(map(_is_decoded, filter(None, values)))
            yield values if is_utf8 else RejectedRow(row.line, "not UTF-8", row.raw)


def _is_decoded(text: str) -> bool:
    # bytes that are not UTF-8 were decoded to these surrogates
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)
