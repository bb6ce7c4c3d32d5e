"""Parquet tables, validated on read and write."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline.io import files, writing
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.journal import refuse_altered
from alignrec.pipeline.io.vector_columns import decode_vectors

# content-defined page boundaries let a chunking store upload only what changed
PARQUET = {"compression": "zstd", "use_content_defined_chunking": True}
PART = 16_384  # items per row group, the unit held in memory
# row groups above this are memory-mapped: reading a part would load all of it
MAX_BYTES_UNMAPPED = 16 << 20
# guards against decompression bombs: bytes of memory that any table may take, and the maximum ratio
# to its size on disk above that; constant vectors reach a few hundred
MIN_BYTES_OF_BOMB = 1 << 30
MAX_EXPANSION = 10_000


def write_table(
    table: pa.Table, path: Path, schema: pa.Schema, record: dict[str, Any] | None = None
) -> None:
    """Validate a table and write it atomically.

    Its provenance is JSON metadata under `alignrec`.
    """
    table = schemas.check(table, schema, str(path))
    if record is not None:
        table = table.replace_schema_metadata(_metadata(record))
    with writing.atomic(path) as temporary:
        pq.write_table(table, temporary, **PARQUET)


def write_tables(
    tables: Iterable[pa.Table], path: Path, schema: pa.Schema, record: dict[str, Any] | None = None
) -> None:
    """Write tables as row groups of one file, one in memory at a time; see `write_table`."""
    metadata = {} if record is None else _metadata(record)
    written = schema.with_metadata(metadata)
    with writing.atomic(path) as temporary, pq.ParquetWriter(temporary, written, **PARQUET) as file:
        for table in tables:
            checked = schemas.check(table, schema, str(path))
            file.write_table(checked.replace_schema_metadata(written.metadata))


def _metadata(record: Mapping[str, Any]) -> dict[str, str]:
    return {"alignrec": json.dumps(record, sort_keys=True)}


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read columns of a Parquet file, vectors as float32 in whatever type they are stored.

    Raise UserError if it is unreadable, schemas.ContractError if invalid.
    """
    return _read_table(path, path, schema, columns)


def read_listed(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a file of a folder with a journal.

    One that changed since it was written, or is damaged, is deleted, so that the next run makes it
    again, and raises UserError. OSError if the disk cannot be read; then the file is left.
    """
    # in memory, so that what is parsed is what is hashed
    with files.open_plain(path) as file:
        data = file.read()
    try:
        refuse_altered({path: hashlib.sha256(data).hexdigest()})
        return _read_table(path, pa.BufferReader(data), schema)
    except UserError:
        path.unlink(missing_ok=True)
        raise


def _read_table(
    path: Path,
    source: Path | pa.BufferReader,
    schema: pa.Schema,
    columns: list[str] | None = None,
) -> pa.Table:
    # pq.read_table would import pyarrow.dataset
    with reraise_faults(path), pq.ParquetFile(source) as file:
        table = file.read(columns)
    return _check_stored(table, _select_fields(schema, columns), path)


def read_tables(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the row groups of a file."""
    first = 0
    with reraise_faults(path), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            yield _check_stored(table, schema, path, first)
            first += len(table)


def read_slices(
    path: Path, schema: pa.Schema, columns: list[str] | None, rows: int
) -> Iterator[pa.Table]:
    """Yield a file's columns (None: all) in tables of at most `rows` rows."""
    expected = _select_fields(schema, columns)
    with reraise_faults(path):
        metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)

    # without pre_buffer=False, all row groups are read ahead
    options = {
        "metadata": metadata,
        "memory_map": largest > MAX_BYTES_UNMAPPED,
        "pre_buffer": False,
    }
    first = 0
    with reraise_faults(path), pq.ParquetFile(path, **options) as file:
        for batch in file.iter_batches(rows, columns=columns):
            table = pa.Table.from_batches([batch])
            if columns is not None:
                table = table.select(columns)
            yield _check_stored(table, expected, path, first)
            first += len(table)

        if not first and columns is None:
            _check_stored(file.schema_arrow.empty_table(), expected, path)


def read_rows(path: Path, schema: pa.Schema, columns: list[str], start: int, rows: int) -> pa.Table:
    """Read `rows` rows from row `start`, from the row groups that hold them."""
    with reraise_faults(path), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        starts = ends - sizes
        groups = np.flatnonzero((starts < start + rows) & (start < ends))
        table = file.read_row_groups(groups.tolist(), columns).select(columns)

    offset = start - starts[groups[0]] if len(groups) else 0
    return _check_stored(table.slice(offset, rows), _select_fields(schema, columns), path)


class Texts:
    """Lazy column `text` of an ITEMS file, in item order."""

    def __init__(self, path: Path) -> None:
        read_table(path, schemas.ITEMS, [])
        self.path = path
        self._len = rows([path])

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        for part in read_slices(self.path, schemas.ITEMS, ["text"], PART):
            yield from part["text"].to_pylist()

    def slice(self, start: int, length: int) -> pa.ChunkedArray:
        return read_rows(self.path, schemas.ITEMS, ["text"], start, length)["text"]


def _select_fields(schema: pa.Schema, columns: list[str] | None) -> pa.Schema:
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


@contextmanager
def reraise_faults(path: Path) -> Iterator[None]:
    if not path.exists():
        raise UserError(f"{path}: not there; {files.made_by(path)}")
    files.require_plain(path)
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError, KeyError, OSError) as e:
        fault = " ".join(str(e).split())
        raise UserError(
            f"{path}: not a readable Parquet file ({fault}); {files.made_by(path)}"
        ) from None


def rows(paths: Iterable[Path]) -> int:
    n_rows = 0
    for path in paths:
        with reraise_faults(path):
            n_rows += pq.read_metadata(path).num_rows
    return n_rows


def _check_stored(table: pa.Table, expected: pa.Schema, path: Path, first: int = 0) -> pa.Table:
    """Validate a table in the type in which its vectors are stored, and decode them."""
    if "vector" not in expected.names:
        return schemas.check(table, expected, str(path), first)
    name = schemas.vector_type(table.schema)
    checked = schemas.check(table, schemas.store_as(expected, name), str(path), first)
    if name == "float32":
        return checked
    return schemas.check(decode_vectors(checked), expected, str(path), first)


def column_sizes(path: Path) -> Iterator[tuple[pq.ColumnSchema, int, int]]:
    """Yield columns of row groups, their rows and bytes in memory, by an untrusted footer.

    UserError for a bomb.
    """
    disk = path.stat().st_size
    limit = max(MIN_BYTES_OF_BOMB, MAX_EXPANSION * disk)
    memory = 0
    with pq.ParquetFile(path, pre_buffer=False, memory_map=True) as file:
        numbers = range(len(file.schema))
        for group_number in range(file.num_row_groups if numbers else 0):
            # wrong size statistics are an error of this reader, which reads no rows, but end the
            # process in `column`
            list(file.reader.iter_batches(0, [group_number], numbers))
            group = file.metadata.row_group(group_number)
            for number in numbers:
                chunk = group.column(number)
                column = file.schema.column(number)
                bytes_of_values = chunk.num_values * max(4, column.length)
                size = max(0, chunk.total_uncompressed_size, bytes_of_values)
                memory += size
                if memory > limit:
                    raise UserError(
                        f"{path}: takes {memory:,} bytes of memory, from {disk:,} on disk"
                    )
                yield column, group.num_rows, size
