"""Readers of Parquet and JSON with identifiers and vectors, including a JSON object of both, as M3L's."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.parquet import MAX_BATCH_BYTES
from alignrec.pipeline.io.text import MAX_LINE_BYTES, open_text, read_lines
from alignrec.pipeline.sources.feature_files import NAMES, is_vector, rank_identifier
from alignrec.pipeline.vectors.base import WIDEST, Vectors, check_vector, gather_rows, no_vectors

BLOCK = 4096  # maximum rows read at a time
LONGEST_IDENTIFIER = 4096  # maximum mean bytes of identifiers
Named = tuple[str, Any, Any]  # identifier column, identifier, vector
LARGEST_ID = 1 << 63
LONGEST_DOCUMENT = 1 << 29  # maximum bytes of a JSON document, which is read as a whole
UNNAMED = "row"  # column name for nested lists, which have no identifiers
MAPPED = "id"  # column name for keys of an object identifier -> vector


def open_parquet(path: Path, column: str | None = None) -> Vectors:
    files = io.list_plain(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"{path}: no *.parquet in this folder; for a release, name features/<encoder> in it"
        )
    schema = pq.read_schema(files[0])
    if other := next((file for file in files if not pq.read_schema(file).equals(schema)), None):
        raise UserError(
            f"{other}: has other columns than {files[0].name}; keep files of one table in the folder"
        )
    io.require_same_space(files)
    named = [name for name in schema.names if rank_identifier(name) >= 0]
    wide = [f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    wide = [name for name in wide if name not in named]
    lists = [field.name for field in schema if is_vector(field.type)]
    is_wide = column is None and not lists and len(wide) > 1  # one column per component
    if column is not None and column not in lists:
        raise UserError(
            f"{path}: no column '{column}' of vectors; it has {', '.join(lists) or 'none'}"
        )
    if column is None and len(lists) != 1 and not is_wide:
        hint = f"; name one, as in {path.name}:{lists[0]}" if lists else ""
        raise UserError(
            f"{path}: {len(lists)} columns hold vectors ({', '.join(lists) or 'none'}), expected one{hint}"
        )
    count = sum(pq.read_metadata(file).num_rows for file in files)
    if not count:
        raise no_vectors(path)
    ids = pa.concat_tables([_read_identifiers(file, named) for file in files])
    if is_wide:
        parts = [
            np.column_stack([c.to_numpy() for c in pq.read_table(f, columns=wide).columns])
            for f in files
        ]
        rows = np.concatenate(parts).astype(np.float32)
        _refuse_short(path, len(rows), count)
        return Vectors(
            path, count, len(wide), lambda numbers: rows[numbers], ids if named else None
        )
    column = column or lists[0]
    first = next(block for _, block in _iterate_blocks(files, column, np.zeros(1, np.int64), 1))
    width = _block_matrix(path, 0, first, column, None).shape[1]
    return Vectors(
        path, count, width, lambda numbers: _take_rows(path, files, column, numbers, width), ids
    )


def _read_identifiers(path: Path, names: list[str]) -> pa.Table:
    """Read identifier columns as dictionaries, which store repeated values once."""
    for field in pq.read_schema(path):
        if field.name in names and (
            pa.types.is_nested(field.type) or isinstance(field.type, pa.JsonType)
        ):
            raise UserError(
                f"{path}: column '{field.name}' is {field.type}; identifiers are texts or integers"
            )
    for column, rows, size in io.column_sizes(path):
        if column.path in names and size > LONGEST_IDENTIFIER * rows + BLOCK**2:
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
    out = np.zeros((len(numbers), width), np.float32)
    for start, block in _iterate_blocks(
        files, column, numbers, max(1, min(BLOCK, MAX_BATCH_BYTES // (8 * width)))
    ):
        low, high = np.searchsorted(numbers, [start, start + len(block)])
        if low < high:
            rows = _block_matrix(path, start, block, column, width)
            with np.errstate(
                over="ignore"
            ):  # an overflowing double becomes inf, which is refused later
                out[low:high] = rows[numbers[low:high] - start]
    return out


def _iterate_blocks(
    files: Sequence[Path], column: str, numbers: np.ndarray, most: int
) -> Iterator[tuple[int, pa.Array]]:
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            groups = [
                file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
            ]
            _refuse_short(path, sum(groups), file.metadata.num_rows)
            for group, rows in enumerate(groups):
                low, high = np.searchsorted(numbers, [start, start + rows])
                at = start
                # skip row groups without wanted rows
                for batch in file.iter_batches(most, [group], [column]) if low < high else ():
                    yield at, batch.column(0)
                    at += len(batch)
                if low < high:
                    _refuse_short(path, at - start, rows)
                start += rows


def _refuse_short(path: Path, found: int, announced: int) -> None:
    # a damaged footer or page may announce other rows than pyarrow reads, without an error
    if found != announced:
        raise UserError(f"{path}: holds {found:,} of {announced:,} rows; get the file again")


def _block_matrix(
    path: Path, start: int, block: pa.Array, column: str, width: int | None
) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(block), -1).to_numpy(zero_copy_only=False)
    expected = int(lengths[0]) if width is None else width
    if (wrong := np.flatnonzero(lengths != expected)).size or not 0 < expected <= WIDEST:
        row = int(wrong[0]) if wrong.size else 0
        found = (
            "no vector"
            if lengths[row] < 1
            else f"{lengths[row]:,} numbers, the rows before have {expected:,}"
        )
        raise UserError(f"{path}, row {start + row}: column '{column}' holds {found}")
    flat = block.flatten()
    if flat.null_count:
        raise UserError(f"{path}: column '{column}' holds a null inside a vector")
    return flat.to_numpy(zero_copy_only=False).reshape(-1, expected)


def open_json(path: Path) -> Vectors:
    names: list[str | int] = []
    column, width = "", None
    for row, (key, name, value) in enumerate(_iterate_values(path)):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise UserError(f"{path}, row {row}: no identifier: one of {', '.join(NAMES)}")
        width, column = len(check_vector(path, row, value, width)), column or key
        names.append(name)
    if width is None:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = ((row, value) for row, (*_, value) in enumerate(_iterate_values(path)))
        return gather_rows(path, rows, numbers, width)

    if column == UNNAMED:
        return Vectors(path, len(names), width, take)
    numbers = all(
        isinstance(name, int) and abs(name) < LARGEST_ID for name in names
    )  # integers may be item numbers
    ids = pa.array(names, pa.int64()) if numbers else pa.array(map(str, names), pa.string())
    return Vectors(path, len(names), width, take, pa.table({column: ids}))


def _iterate_values(path: Path) -> Iterator[Named]:
    first: Any = None
    with suppress(orjson.JSONDecodeError):
        first = orjson.loads(next((line for line in read_lines(path) if line.strip()), b""))
    # JSON lines if the first line is a complete object with an identifier
    if isinstance(first, dict) and any(rank_identifier(key) >= 0 for key in first):
        for row, line in enumerate(read_lines(path)):
            if line.strip():
                yield _split_object(path, row, _parse_line(path, row, line))
        return
    with open_text(path) as f:
        data = f.read(LONGEST_DOCUMENT + 1)
    if len(data) > LONGEST_DOCUMENT:
        raise UserError(
            f"{path}: longer than {LONGEST_DOCUMENT:,} bytes; write JSON lines, or Parquet"
        )
    is_array = data.lstrip().startswith(b"[")
    try:
        value = json.loads(
            data, object_pairs_hook=None if is_array else list
        )  # pairs keep duplicate identifiers
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, or cut off") from None
    for row, one in enumerate(value if isinstance(value, list) else ()):
        yield _split_object(path, row, one) if is_array else (MAPPED, *one)


def _parse_line(path: Path, row: int, line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise UserError(f"{path}, line {row + 1}: longer than {MAX_LINE_BYTES:,} bytes")
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(line)
    try:
        return json.loads(line)  # accepts NaN, which is rejected later with its row number
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {row + 1}: not JSON") from None


def _split_object(path: Path, row: int, value: Any) -> Named:
    if isinstance(value, list):
        return UNNAMED, row, value
    if not isinstance(value, dict):
        raise UserError(f"{path}, row {row}: not an object with an identifier and a vector")
    known = sorted((key for key in value if rank_identifier(key) >= 0), key=rank_identifier)
    lists = [
        k
        for k in value
        if isinstance(value[k], list) and value[k] and type(value[k][0]) in (int, float)
    ]
    if len(lists) != 1:
        found = ", ".join(lists) or "none"
        raise UserError(f"{path}, row {row}: {len(lists)} lists of numbers ({found}), expected one")
    return known[0] if known else "", value[known[0]] if known else None, value[lists[0]]
