"""Read untrusted Parquet files in batches of bounded memory."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.text import MAX_LINE_BYTES

MAX_MEAN_BYTES = 1 << 20  # of a column's texts in a row group
MAX_BATCH_ROWS = 4096
MAX_BATCH_BYTES = 1 << 29
MAX_ROW_BYTES = 1 << 26
BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


def column_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(io.require_plain(path)).names)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as e:
        raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None


def read_batches(
    path: Path, columns: list[str] | None = None, rows: int = MAX_BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an untrusted Parquet file in batches bounded by bytes.

    UserError if it is damaged.
    """
    io.require_plain(path)
    try:
        schema = pq.read_schema(path)
        if columns is not None:
            schema = pa.schema([field for field in schema if field.name in columns])
        metadata = pq.read_metadata(path)
        bytes_per_row = _largest_mean(path) * max(1, metadata.num_columns)
        batch_rows = max(1, min(rows, MAX_BATCH_BYTES // bytes_per_row))

        # dictionary encoding stores a text that all rows share only once; pyarrow has none of
        # extensions such as JSON
        options = {
            "read_dictionary": range(metadata.num_columns),
            "arrow_extensions_enabled": False,
        }
        total = 0
        with pq.ParquetFile(path, pre_buffer=False, memory_map=True, **options) as file:
            # pyarrow reads no list across groups, whose dictionaries differ
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_rows, [group], columns):
                    yield from _split_batch(batch, schema)
                    total += len(batch)
            if total != file.metadata.num_rows:
                raise ValueError(f"{total:,} of {file.metadata.num_rows:,} rows")
    except (pa.ArrowException, ValueError, OSError) as e:  # ValueError covers UnicodeDecodeError
        raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None


def _largest_mean(path: Path) -> int:
    """Return the largest mean bytes of a column in a row group.

    UserError for texts that are too long.
    """
    largest = 1
    for column, rows, size in io.column_sizes(path):
        mean = size // max(1, rows)
        # Arrow holds whole pages in memory, so the footer is used to reject texts that are too long
        if mean > MAX_MEAN_BYTES and column.logical_type.type in ("STRING", "JSON"):
            raise UserError(
                f"{path}: texts of column '{one_line(column.path, 64)}' have {mean:,} bytes on "
                f"average, and {MAX_MEAN_BYTES:,} is the most; shorten them"
            )
        largest = max(largest, mean)
    return largest


def _split_batch(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Halve a batch until its texts, counted as often as they occur, fit into MAX_LINE_BYTES."""
    size = sum(map(_expanded_size, batch.columns))
    half = len(batch) // 2
    if size > MAX_LINE_BYTES and half:
        # of a slice, a cast would take all rows of the batch
        for part in (range(half), range(half, len(batch))):
            yield from _split_batch(batch.take(pa.array(part)), schema)
        return
    if size > MAX_ROW_BYTES:
        raise ValueError(f"a row of {size:,} bytes, and {MAX_ROW_BYTES:,} are the most")

    plain = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    batch = pa.RecordBatch.from_arrays(plain, batch.schema.names)
    with suppress(
        pa.ArrowNotImplementedError
    ):  # views in lists have no cast, and stay dictionaries
        batch = batch.cast(schema)
    yield batch


def decode_binary(batch: pa.RecordBatch, kept: str = "") -> pa.RecordBatch:
    """Return a batch whose binary values are texts, and whose maps are lists of objects, except in
    the column `kept`.

    Raises ValueError if some are not UTF-8.
    """
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        kind = column.type if field.name == kept else _text_type(column.type)
        try:
            columns.append(column.cast(kind))
        except pa.ArrowInvalid:
            raise ValueError(f"not UTF-8: column '{one_line(field.name, 64)}'") from None
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in BINARY)


def _text_type(kind: pa.DataType) -> pa.DataType:
    """Return a type with texts in place of binary values, and lists in place of maps."""
    types = pa.types
    if is_binary(kind):
        return pa.string()
    if types.is_map(kind):
        pair = {"key": _text_type(kind.key_type), "value": _text_type(kind.item_type)}
        return pa.list_(pa.struct(pair))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_text_type(field.type)) for field in kind])

    if types.is_nested(kind):
        inner = _text_type(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    return kind


def _expanded_size(column: pa.Array) -> int:
    """Return the bytes of all texts in a column of dictionaries, or of lists or structs of them."""
    if pa.types.is_map(column.type):
        column = column.cast(pa.list_(column.values.type))
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        return pc.sum(lengths).as_py() or 0
    if not pa.types.is_nested(column.type):
        return 0
    inner = column.flatten()  # a list of columns for a struct
    return sum(map(_expanded_size, inner if isinstance(inner, list) else [inner]))
