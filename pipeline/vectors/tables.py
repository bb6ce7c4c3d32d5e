"""Reader of Parquet features: a file or folder with a column of identifiers and one of vectors."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.sources.feature_files import is_vector, rank_identifier
from alignrec.pipeline.vectors.base import WIDEST, Vectors, no_vectors

BLOCK = 4096  # rows read at a time
LONGEST_IDENTIFIER = 4096  # bytes on average


def open_parquet(path: Path, column: str | None = None) -> Vectors:
    files = io.list_plain(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet in this folder; for a release, name features/<encoder> in it")
    schema = pq.read_schema(files[0])
    if other := next((file for file in files if not pq.read_schema(file).equals(schema)), None):
        raise UserError(f"{other}: has other columns than {files[0].name}; keep files of one table in the folder")
    io.one_set(files)
    named = [name for name in schema.names if rank_identifier(name) >= 0]
    wide = [
        f.name for f in schema if f.name not in named and (pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
    ]
    if column is None and len(wide) > 1 and not any(is_vector(field.type) for field in schema):
        return _open_wide(path, files, named, wide)
    column = _choose_column(path, schema, column)
    count = sum(pq.read_metadata(file).num_rows for file in files)
    if not count:
        raise no_vectors(path)
    ids = pa.concat_tables([_read_identifiers(file, named) for file in files])
    first = next(block for _, block in _iterate_blocks(files, column, np.zeros(1, np.int64)))
    width = _block_matrix(path, 0, first.slice(0, 1), column, None).shape[1]
    return Vectors(path, count, width, lambda numbers: _take_rows(path, files, column, numbers, width), ids)


def _open_wide(path: Path, files: Sequence[Path], named: list[str], wide: list[str]) -> Vectors:
    """Open a table with a column per component."""
    parts = [np.column_stack([c.to_numpy() for c in pq.read_table(f, columns=wide).columns]) for f in files]
    rows = np.concatenate(parts).astype(np.float32)
    if not len(rows):
        raise no_vectors(path)
    ids = pa.concat_tables([_read_identifiers(file, named) for file in files])
    return Vectors(path, len(rows), len(wide), lambda numbers: rows[numbers], ids if named else None)


def _read_identifiers(path: Path, names: list[str]) -> pa.Table:
    """Read identifier columns as dictionaries, in which a repeated value takes memory once."""
    nested = (field for field in pq.read_schema(path) if field.name in names and pa.types.is_nested(field.type))
    if wrong := next(nested, None):
        raise UserError(f"{path}: column '{wrong.name}' is {wrong.type}; identifiers are texts or integers")
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=names) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        chunks = ((group.num_rows, group.column(i)) for group in groups for i in range(group.num_columns))
        for rows, chunk in chunks:
            if chunk.path_in_schema in names and chunk.total_uncompressed_size > LONGEST_IDENTIFIER * rows + BLOCK**2:
                raise UserError(
                    f"{path}: column '{chunk.path_in_schema}' holds texts, and no identifiers; leave it out"
                )
        table = file.read(names)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as e:
        raise UserError(f"{path}: identifiers are not UTF-8 ({one_line(e, 60)}); write them as UTF-8") from None
    return table


def _choose_column(path: Path, schema: pa.Schema, wanted: str | None) -> str:
    lists = [field.name for field in schema if is_vector(field.type)]
    if wanted is not None and wanted not in lists:
        raise UserError(f"{path}: no column '{wanted}' of vectors; it has {', '.join(lists) or 'none'}")
    if wanted is None and len(lists) != 1:
        hint = f"; name one, as in {path.name}:{lists[0]}" if lists else ""
        raise UserError(f"{path}: {len(lists)} columns hold vectors ({', '.join(lists) or 'none'}), expected one{hint}")
    return wanted or lists[0]


def _take_rows(path: Path, files: Sequence[Path], column: str, numbers: np.ndarray, width: int) -> np.ndarray:
    out = np.zeros((len(numbers), width), np.float32)
    for start, block in _iterate_blocks(files, column, numbers):
        low, high = np.searchsorted(numbers, [start, start + len(block)])
        if low < high:
            rows = _block_matrix(path, start, block, column, width)
            with np.errstate(over="ignore"):  # an overflowing double becomes inf, which is refused later
                out[low:high] = rows[numbers[low:high] - start]
    return out


def _iterate_blocks(files: Sequence[Path], column: str, numbers: np.ndarray) -> Iterator[tuple[int, pa.Array]]:
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(numbers, [start, start + rows])
                at = start
                # skip row groups without wanted rows
                for batch in file.iter_batches(BLOCK, [group], [column]) if low < high else ():
                    yield at, batch.column(0)
                    at += len(batch)
                start += rows


def _block_matrix(path: Path, start: int, block: pa.Array, column: str, width: int | None) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(block), -1).to_numpy(zero_copy_only=False)
    expected = int(lengths[0]) if width is None else width
    if (wrong := np.flatnonzero(lengths != expected)).size or not 0 < expected <= WIDEST:
        row = int(wrong[0]) if wrong.size else 0
        found = "no vector" if lengths[row] < 1 else f"{lengths[row]:,} numbers, the rows before have {expected:,}"
        raise UserError(f"{path}, row {start + row}: column '{column}' holds {found}")
    flat = block.flatten()
    if flat.null_count:
        raise UserError(f"{path}: column '{column}' holds a null inside a vector")
    return flat.to_numpy(zero_copy_only=False).reshape(-1, expected)
