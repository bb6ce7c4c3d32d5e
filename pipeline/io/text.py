"""Read text files by line, or as CSV by row: UTF-8 with or without BOM, optionally gzipped."""

import codecs
import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader, RawIOBase
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from isal import igzip_threaded
from isal.igzip_lib import IsalError

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

BLOCK = 1 << 20  # bytes; a large buffer halves the time to read lines
LONGEST_LINE = 16 << 20  # bytes; real lines stay below 1 MiB
LONGEST_MEAN = 1 << 20  # maximum mean bytes of a column's texts in a row group of Parquet
PARQUET_ROWS = 4096  # maximum rows per batch
MOST_HELD = 1 << 29  # maximum bytes of a batch, and of one row
KEPT = 1 << 16  # maximum bytes kept of an unreadable line
MOST_BLANK = 1_000_000  # consecutive blank lines: gzip compresses a thousand into a byte
HEAD = 4096  # leading bytes from which the encoding is detected
MARKS = (
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
    codecs.BOM_UTF32_BE,
)  # UTF-32 LE starts like UTF-16 LE
UNREADABLE = b"\0unreadable: "  # cannot begin a JSON document
LONG_NUMBER = re.compile(rb"[0-9]{19}")
LOOKED_AT = 1000  # JSON lines inspected for keys, as each line may have only some
LONGEST_HEADER = 100_000  # maximum bytes of a header
DELIMITERS = (",", "\t", ";", "|")  # if none occurs in the header, the file has one column
KEPT_IN_ALL = 64 << 20  # total bytes of unreadable rows; later ones are kept without their text
ROWS = 1 << 16  # rows written at a time


def open_unpacked(path: Path) -> BufferedReader:
    """Open a file for reading bytes, decompressing .gz; damage raises EOFError, BadGzipFile or IsalError."""
    io.require_plain(path)
    if path.suffix != ".gz":
        return path.open("rb")
    return BufferedReader(cast(RawIOBase, igzip_threaded.open(path, "rb", threads=1)), BLOCK)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file; longer ones are cut after LONGEST_LINE + 1 bytes."""
    blank = 0
    with open_text(path) as f:
        for line in iter(partial(f.readline, LONGEST_LINE + 1), b""):
            blank = blank + 1 if line.isspace() else 0
            if blank > MOST_BLANK:
                raise UserError(
                    f"{path}: more than {MOST_BLANK:,} blank lines in a row; is this the right file?"
                )
            yield line
            if len(line) > LONGEST_LINE:
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = f.readline(LONGEST_LINE)


@contextmanager
def open_text(path: Path) -> Iterator[BufferedReader]:
    """Open a text file after its BOM; raise UserError for UTF-16, UTF-32 or damaged gzip, also while reading."""
    try:
        with open_unpacked(path) as f:
            head = f.peek(HEAD)[:HEAD]
            if 10 * head.count(0) > 9 * len(head):  # UTF-32 has three zeros in four bytes
                raise UserError(f"{path}: holds NUL bytes, not text; fetch it again")
            if head.startswith(MARKS) or 4 * head.count(0) > len(
                head
            ):  # UTF-16 pads Latin letters with zero bytes
                raise UserError(
                    f"{path}: is in UTF-16 or UTF-32, expected UTF-8; convert it, as `iconv -t UTF-8` does"
                )
            if head.startswith(codecs.BOM_UTF8):
                f.read(len(codecs.BOM_UTF8))
            yield f
    except (EOFError, gzip.BadGzipFile, IsalError):  # type: ignore[misc]  # the stub declares an instance
        raise UserError(
            f"{path}: the gzip file is damaged or cut off; fetch it again, or pack it again"
        ) from None


def refuse_blank(path: Path) -> None:
    """Raise UserError for a large block of white space, which takes other readers minutes."""
    with open_text(path) as f:
        while len(block := f.read(BLOCK)) == BLOCK:
            if block.isspace():
                raise UserError(f"{path}: contains a MiB of blank lines; is this the right file?")


class Reject(NamedTuple):
    """A line or row that cannot be read."""

    line: int  # line number from 1
    reason: str
    raw: bytes  # the first KEPT bytes


def reject_table(file: str, rejects: Iterable[Reject]) -> pa.Table:
    rows = [{"file": file} | reject._asdict() for reject in rejects]
    return pa.Table.from_pylist(
        rows, pa.schema([field.remove_metadata() for field in schemas.REJECTS])
    )


def refuse_many(
    file: object, what: str, found: Sequence[Reject], total: int, most: float, key: str
) -> None:
    if len(found) > most * total:
        common = Counter(reject.reason for reject in found).most_common(3)
        reasons = ", ".join(f"{reason} ({n:,}x)" for reason, n in common)
        share = (
            f"{len(found):,} of {total:,} {what} are unreadable, more than {key} = {most:g} allows"
        )
        raise UserError(f"{file}: {share}: {reasons}; the first is line {found[0].line}")


def read_batches(
    path: Path, columns: list[str] | None = None, rows: int = PARQUET_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an untrusted Parquet file in batches bounded by bytes; UserError if it is damaged."""
    io.require_plain(path)
    total, largest = 0, 1
    try:
        schema = pa.schema(
            [field for field in pq.read_schema(path) if columns is None or field.name in columns]
        )
        for column, held, size in io.column_sizes(path):
            mean = size // max(1, held)
            # Arrow holds whole pages in memory, so the footer is used to reject texts that are too long
            if mean > LONGEST_MEAN and column.logical_type.type in ("STRING", "JSON"):
                shown, most = (
                    one_line(column.path, 64),
                    f"{LONGEST_MEAN:,} is the most; shorten them",
                )
                raise UserError(
                    f"{path}: texts of column '{shown}' have {mean:,} bytes on average, and {most}"
                )
            largest = max(largest, mean)
        leaves = pq.read_metadata(path).num_columns
        step = max(1, min(rows, MOST_HELD // (largest * max(1, leaves))))
        # dictionary encoding stores a text that all rows share only once; pyarrow has none of extensions such as JSON
        options = {"read_dictionary": range(leaves), "arrow_extensions_enabled": False}
        with pq.ParquetFile(path, pre_buffer=False, memory_map=True, **options) as file:
            for group in range(
                file.num_row_groups
            ):  # pyarrow reads no list across groups, whose dictionaries differ
                for batch in file.iter_batches(step, [group], columns):
                    yield from _split_batch(batch, schema)
                    total += len(batch)
            if total != file.metadata.num_rows:
                raise ValueError(f"{total:,} of {file.metadata.num_rows:,} rows")
    except (pa.ArrowException, ValueError, OSError) as e:  # ValueError covers UnicodeDecodeError
        raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None


def _split_batch(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Halve a batch until its texts, each counted as often as it occurs, fit into LONGEST_LINE bytes."""
    size, half = sum(map(_expanded_size, batch.columns)), len(batch) // 2
    if size > LONGEST_LINE and half:
        for part in (
            range(half),
            range(half, len(batch)),
        ):  # of a slice, a cast would take all rows of the batch
            yield from _split_batch(batch.take(pa.array(part)), schema)
    elif size > MOST_HELD:
        raise ValueError(f"a row of {size:,} bytes")
    else:
        plain = [
            c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns
        ]
        batch = pa.RecordBatch.from_arrays(plain, batch.schema.names)
        with suppress(
            pa.ArrowNotImplementedError
        ):  # views in lists have no cast, and stay dictionaries
            batch = batch.cast(schema)
        yield batch


def _expanded_size(column: pa.Array) -> int:
    """Return the bytes of all texts in a column of dictionaries, or of lists or structs of them."""
    if pa.types.is_map(column.type):
        column = column.cast(pa.list_(column.values.type))
    if pa.types.is_dictionary(column.type):
        return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    inner = column.flatten() if pa.types.is_nested(column.type) else []
    return sum(map(_expanded_size, inner if isinstance(inner, list) else [inner]))


def mark_unreadable(reason: str) -> bytes:
    """Return a placeholder line for a row without a JSON form; `json_object` raises `reason` for it."""
    return UNREADABLE + reason[:200].encode("utf-8", "replace")


def json_object(line: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError with a short message if that fails."""
    if line.startswith(UNREADABLE):
        raise ValueError(one_line(line[len(UNREADABLE) :].decode("utf-8", "replace"), 100))
    try:
        try:
            record = orjson.loads(line)
            if LONG_NUMBER.search(
                line
            ):  # orjson converts integers beyond 64 bits, which may be identifiers, to floats
                record = json.loads(line)
        except ValueError:
            if b"NaN" not in line and b"Infinity" not in line:
                raise
            record = json.loads(
                line.decode(), parse_constant=lambda _: None
            )  # Python's constants as null
            json.dumps(
                record, ensure_ascii=False
            ).encode()  # refuses lone surrogates, which Arrow cannot store
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    return require_dict(record)


def require_dict(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def find_delimiter(path: Path) -> str | None:
    """Return the delimiter of a .csv, .tsv or .inter file; None for Parquet and JSON."""
    if ".tsv" in path.suffixes or ".inter" in path.suffixes:
        return "\t"
    if ".csv" not in path.suffixes:
        return None
    header = first_line(path)
    return next((d for d in DELIMITERS if d in header), DELIMITERS[0])


def column_names(path: Path, wanted: Iterable[str] = ()) -> list[str]:
    """Return the column names of a file; for JSON, the keys seen until all of `wanted` are found."""
    if path.suffix == ".parquet":
        try:
            return list(pq.read_schema(io.require_plain(path)).names)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as e:
            raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None
    if (separator := find_delimiter(path)) is not None:
        try:
            return next(csv.reader([first_line(path)], delimiter=separator))
        except csv.Error as e:  # such as a carriage return in the header
            fault = f"its first line is not CSV: {one_line(e, 100)}; end lines with a line feed"
            raise UserError(f"{path}: {fault}") from None
    keys: dict[str, None] = {}
    required = set(wanted)
    for number, line in enumerate(
        read_lines(path), start=1
    ):  # any line may be unreadable, even the first
        with suppress(ValueError):
            keys |= dict.fromkeys(json_object(line))
        if number >= LOOKED_AT and (not keys or required <= keys.keys()):
            break
    if not keys:
        raise UserError(
            f"{path}: the file is empty, or neither JSON lines nor named .csv, .tsv or .parquet"
        )
    return list(keys)


def first_line(path: Path) -> str:
    with open_text(path) as f:
        line = f.readline(LONGEST_HEADER + 1).decode("utf-8", errors="replace").rstrip("\r\n")
    if not line.strip():
        raise UserError(
            f"{path}: the file is empty; expected a first line with the names of the columns"
        )
    if len(line) > LONGEST_HEADER:
        raise UserError(
            f"{path}, line 1: longer than {LONGEST_HEADER:,} bytes; expected names of columns"
        )
    return line


class Row(NamedTuple):
    """A row of a text file, which may span lines."""

    line: int  # line number of its first line, from 1
    values: list[str]
    raw: bytes  # the first KEPT bytes


def read_rows(
    source: Iterator[bytes], separator: str, errors: str = "replace"
) -> Iterator[Row | Reject]:
    csv.field_size_limit(LONGEST_LINE)  # process-wide; the default is 128 KiB
    text = _Text(source, errors)
    # strict: an unclosed quote is an error; otherwise the rest of the file would become one value
    reader = csv.reader(text, delimiter=separator, strict=True)
    while True:
        text.first += text.lines
        text.lines, text.size, text.raw = 0, 0, bytearray()
        try:
            if values := next(reader):
                yield Row(text.first, values, bytes(text.raw))
        except StopIteration:
            return
        except (
            csv.Error
        ) as e:  # the reader resumes at the next line, so all lines read so far are rejects
            for offset in range(text.lines):
                yield Reject(
                    text.first + offset,
                    f"not CSV: {one_line(e, 80)}",
                    b"" if offset else bytes(text.raw),
                )


def json_lines(path: Path) -> Iterator[bytes]:
    """Yield each row of Parquet, or of a text file with a header, as JSON; lines of a JSON file are passed through."""
    if path.suffix == ".parquet":
        yield from (line for rows in read_batches(path) for line in _rows_as_json(rows))
        return
    separator = find_delimiter(path)
    if separator is None:
        yield from read_lines(path)
        return
    found = read_rows(read_lines(path), separator)
    header = next(found, None)
    if not isinstance(header, Row):
        yield from (
            mark_unreadable(getattr(row, "reason", "no header")) for row in (header, *found) if row
        )
        return
    width = len(header.values)
    for row in found:
        if isinstance(row, Reject):
            yield mark_unreadable(row.reason)
        else:
            extra = {"_extra": row.values[width:]} if row.values[width:] else {}
            yield orjson.dumps(dict(zip_longest(header.values, row.values[:width])) | extra)


def _rows_as_json(rows: pa.RecordBatch) -> list[bytes]:
    try:
        return [orjson.dumps(row, default=str) for row in rows.to_pylist()]
    except (
        ValueError,
        OverflowError,
        TypeError,
        pa.ArrowException,
    ) as e:  # such as a date outside Python's range
        if len(rows) == 1:
            return [mark_unreadable(f"not JSON: {e}")]
    return [line for i in range(len(rows)) for line in _rows_as_json(rows.slice(i, 1))]


def repair_rows(path: Path, wanted: Sequence[str], to: Path, most: float) -> pa.Table:
    """Write the `wanted` columns of a text file as Parquet strings; return unreadable rows as a table REJECTS."""
    source, rejects, kept, total = _select_columns(path, wanted), list[Reject](), 0, 0
    schema = pa.schema([(name, pa.string()) for name in wanted])
    with pq.ParquetWriter(to, schema) as file:
        while part := list(islice(source, ROWS)):
            total += len(part)
            sound = [row for row in part if not isinstance(row, Reject)]
            columns = [
                pa.array([values[i] for values in sound], pa.string()) for i in range(len(wanted))
            ]
            file.write_table(pa.table(columns, schema=schema))
            for row in (row for row in part if isinstance(row, Reject)):
                kept += len(row.raw)
                rejects.append(row if kept <= KEPT_IN_ALL else row._replace(raw=b""))
    refuse_many(path, "rows", rejects, total, most, "the source's max_reject_share")
    return reject_table(path.name, rejects)


def _select_columns(path: Path, wanted: Sequence[str]) -> Iterator[list[str | None] | Reject]:
    source = read_rows(read_lines(path), find_delimiter(path) or ",", "surrogateescape")
    first = next(source, None)
    header = first.values if isinstance(first, Row) else []
    if absent := [name for name in wanted if name not in header]:
        raise UserError(
            f"{path}: its first line is not CSV: no column '{absent[0]}'; end it with a line feed"
        )
    places = [header.index(name) for name in wanted]
    for row in source:
        if isinstance(row, Reject):
            yield row
            continue
        found = [row.values[at] if at < len(row.values) else None for at in places]
        if any(row.values[len(header) :]):
            yield Reject(row.line, f"more than {len(header)} values", row.raw)
        elif not (text := "".join(filter(None, found))).isascii() and any(
            "\udc80" <= c <= "\udcff" for c in text
        ):
            yield Reject(row.line, "not UTF-8", row.raw)
        else:
            yield found


class _Text:
    """Iterator of decoded lines for the csv module, which limits a row to LONGEST_LINE bytes."""

    def __init__(self, source: Iterator[bytes], errors: str) -> None:
        self._source, self._errors = source, errors
        self.first, self.lines, self.size, self.raw = 1, 0, 0, bytearray()

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
