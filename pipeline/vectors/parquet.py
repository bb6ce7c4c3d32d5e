"""Reader of Parquet tables with identifiers and vectors. N rows, F width."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.parquet import MAX_BATCH_BYTES
from alignrec.pipeline.runtime.section import MAX_WIDTH
from alignrec.pipeline.vectors.base import VectorFile, no_vectors
from alignrec.pipeline.vectors.formats import is_number, is_vector
from alignrec.pipeline.vectors.identifiers import rank_identifier
from alignrec.pipeline.vectors.series import is_index, keep_series

MAX_ROWS_PER_BATCH = 4096
MAX_MEAN_IDENTIFIER_BYTES = 4096
SPARE_IDENTIFIER_BYTES = 1 << 24  # that a column may have above the mean


def open_parquet(path: Path, column: str | None = None) -> VectorFile:
    """Open a file or a folder of files of one table.

    `column` picks one of several columns of vectors.
    """
    files = _list_files(path)
    schema = pq.read_schema(files[0])
    identifiers = [name for name in schema.names if rank_identifier(name) >= 0]
    scalars = [field.name for field in schema if is_number(field.type)]
    others = [name for name in scalars if name not in identifiers]
    components = [name for name in others if not is_index(name)]
    lists = [field.name for field in schema if is_vector(field.type)]

    is_wide = column is None and not lists and len(components) > 1  # one column per component
    if not is_wide:
        column = _choose_column(path, lists, column)
    count = sum(pq.read_metadata(file).num_rows for file in files)
    if not count:
        raise no_vectors(path)

    ids = pa.concat_tables([_read_identifiers(file, identifiers) for file in files])
    if column is None:
        vectors = _open_wide(path, files, components, count, ids if identifiers else None)
        indexes = [name for name in others if is_index(name)]
        return replace(vectors, left_out=[*indexes, *vectors.left_out])
    return _open_lists(path, files, column, count, ids)


def _list_files(path: Path) -> list[Path]:
    files = io.list_plain(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"{path}: no *.parquet in this folder; for a release, name features/<encoder> in it"
        )

    schema = pq.read_schema(files[0])
    for file in files:
        if not pq.read_schema(file).equals(schema):
            raise UserError(
                f"{file}: has other columns than {files[0].name}; "
                "keep files of one table in the folder"
            )
    io.require_same_space(files)
    return files


def _choose_column(path: Path, lists: Sequence[str], column: str | None) -> str:
    available = ", ".join(lists) or "none"
    if column is not None:
        if column not in lists:
            raise UserError(f"{path}: no column '{column}' of vectors; it has {available}")
        return column
    if len(lists) != 1:
        hint = f"; name one, as in {path.name}:{lists[0]}" if lists else ""
        raise UserError(
            f"{path}: {len(lists)} columns hold vectors ({available}), expected one{hint}"
        )
    return lists[0]


def _open_wide(
    path: Path, files: Sequence[Path], components: list[str], count: int, ids: pa.Table | None
) -> VectorFile:
    parts = []
    for file in files:
        table = pq.read_table(file, columns=components)
        parts.append(np.column_stack([values.to_numpy() for values in table.columns]))
    vectors, numbering = keep_series(path, components, np.concatenate(parts).astype(np.float32))
    _refuse_short(path, len(vectors), count)
    width = vectors.shape[1]
    return VectorFile(path, count, width, lambda n: vectors[n], ids, left_out=numbering)


def _open_lists(
    path: Path, files: Sequence[Path], column: str, count: int, ids: pa.Table
) -> VectorFile:
    _, first = next(_iterate_blocks(files, column, np.zeros(1, np.int64), 1))
    width = _block_matrix(path, 0, first, column, None).shape[1]

    def take(numbers: np.ndarray) -> np.ndarray:
        return _take_rows(path, files, column, numbers, width)

    return VectorFile(path, count, width, take, ids)


def _read_identifiers(path: Path, names: list[str]) -> pa.Table:
    """Read identifier columns as dictionaries, which store repeated values once."""
    for field in pq.read_schema(path):
        is_unfit = pa.types.is_nested(field.type) or isinstance(field.type, pa.JsonType)
        if field.name in names and is_unfit:
            raise UserError(
                f"{path}: column '{field.name}' is {field.type}; identifiers are texts or integers"
            )

    for column, rows, size in io.column_sizes(path):
        max_bytes = MAX_MEAN_IDENTIFIER_BYTES * rows + SPARE_IDENTIFIER_BYTES
        if column.path in names and size > max_bytes:
            raise UserError(
                f"{path}: column '{column.path}' holds texts, and no identifiers; leave it out"
            )

    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=names) as file:
        table = file.read(names)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as e:
        raise UserError(
            f"{path}: identifiers are not UTF-8 ({one_line(e, 60)}); write them as UTF-8"
        ) from None
    return table


def _take_rows(
    path: Path, files: Sequence[Path], column: str, numbers: np.ndarray, width: int
) -> np.ndarray:
    rows_per_batch = max(1, min(MAX_ROWS_PER_BATCH, MAX_BATCH_BYTES // (8 * width)))
    vectors = np.zeros((len(numbers), width), np.float32)
    for start, block in _iterate_blocks(files, column, numbers, rows_per_batch):
        low, high = np.searchsorted(numbers, [start, start + len(block)])
        if low < high:
            rows = _block_matrix(path, start, block, column, width)
            with np.errstate(
                over="ignore"
            ):  # an overflowing double becomes inf, which is refused later
                vectors[low:high] = rows[numbers[low:high] - start]
    return vectors


def _iterate_blocks(
    files: Sequence[Path], column: str, numbers: np.ndarray, rows_per_batch: int
) -> Iterator[tuple[int, pa.Array]]:
    """Yield the first row's number and the values of each batch, of the row groups that hold any of
    `numbers`.
    """
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            rows_of_groups = [
                file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)
            ]
            _refuse_short(path, sum(rows_of_groups), file.metadata.num_rows)
            for group, rows in enumerate(rows_of_groups):
                low, high = np.searchsorted(numbers, [start, start + rows])
                if low < high:
                    position = start
                    for batch in file.iter_batches(rows_per_batch, [group], [column]):
                        rows_read = io.decode_vectors(pa.Table.from_batches([batch]))
                        yield position, rows_read[column].combine_chunks()
                        position += len(batch)
                    _refuse_short(path, position - start, rows)
                start += rows


def _refuse_short(path: Path, n_read: int, n_announced: int) -> None:
    # a damaged footer or page may announce other rows than pyarrow reads, without an error
    if n_read != n_announced:
        raise UserError(f"{path}: holds {n_read:,} of {n_announced:,} rows; get the file again")


def _block_matrix(
    path: Path, start: int, block: pa.Array, column: str, width: int | None
) -> np.ndarray:
    """Return lists of numbers as a matrix [n, F]; UserError unless all have the width."""
    lengths = pc.fill_null(pc.list_value_length(block), -1).to_numpy(zero_copy_only=False)
    expected = int(lengths[0]) if width is None else width
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size or not 0 < expected <= MAX_WIDTH:
        row = int(wrong[0]) if wrong.size else 0
        fault = f"{lengths[row]:,} numbers, the rows before have {expected:,}"
        if lengths[row] < 1:
            fault = "no vector"
        raise UserError(f"{path}, row {start + row}: column '{column}' holds {fault}")

    values = block.flatten()
    if values.null_count:
        raise UserError(f"{path}: column '{column}' holds a null inside a vector")
    return values.to_numpy(zero_copy_only=False).reshape(-1, expected)
