"""Parquet tables, validated on read and write, and feature sets as shards of them in item order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline.io import files, writing
from alignrec.pipeline.io.errors import UserError, one_line

# content-defined page boundaries let a chunking store upload only what changed
PARQUET = {"compression": "zstd", "use_content_defined_chunking": True}
PART = 16_384  # items per row group, the unit held in memory
# key of the provenance that identifies a file's vector space: kind, settings, model, prompt,
# weights, image size
FINGERPRINT = "fingerprint"
MAX_SHOWN_FINGERPRINT_CHARACTERS = 40  # of a fingerprint's value in messages
MAX_FINGERPRINT_LEVELS = 16  # of nesting
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
    # pq.read_table would import pyarrow.dataset
    with reraise_faults(path), pq.ParquetFile(path) as file:
        table = file.read(stored_columns(file.schema_arrow, columns))
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
        stored = stored_columns(file.schema_arrow, columns)
        for batch in file.iter_batches(rows, columns=stored):
            table = pa.Table.from_batches([batch])
            if stored is not None:
                table = table.select(stored)
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
        stored = stored_columns(file.schema_arrow, columns)
        table = file.read_row_groups(groups.tolist(), stored).select(stored)

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
    return sum(pq.read_metadata(files.require_plain(path)).num_rows for path in paths)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    width = column.type.list_size
    flat = [np.asarray(c.flatten().to_numpy(zero_copy_only=False)) for c in column.chunks]
    return np.concatenate(flat).reshape(-1, width) if flat else np.empty((0, width), np.float32)


def round_vectors(table: pa.Table, name: str) -> pa.Table:
    """Return a table with its float32 vectors in a type of schemas.VECTOR_TYPES.

    ValueError if a component is too large for it, or a vector so small that it becomes zero.
    """
    if name == "float32":
        return table
    x = matrix(table["vector"])
    scale: np.ndarray | None = None
    if name == "float16":
        with np.errstate(over="ignore"):
            rounded = x.astype(np.float16)
    else:
        scale = (np.abs(x).max(axis=1, initial=0) / 127).astype(np.float32)
        divisor = np.where(scale > 0, scale, 1)[:, None]
        rounded = np.clip(np.rint(x / divisor), -127, 127).astype(np.int8)
    _refuse_unfit(x, rounded, name)

    flat = pa.array(rounded.reshape(-1))
    kind = pa.list_(pa.field("element", flat.type, nullable=False), x.shape[1])
    place = table.column_names.index("vector")
    table = table.set_column(place, "vector", pa.FixedSizeListArray.from_arrays(flat, type=kind))
    return table if scale is None else table.append_column(schemas.SCALE, pa.array(scale))


def _refuse_unfit(x: np.ndarray, rounded: np.ndarray, name: str) -> None:
    if not np.isfinite(rounded).all():
        limit = float(np.finfo(np.float16).max)
        raise ValueError(
            f"{name} holds at most {limit:,.0f}, and a component is {np.abs(x).max():.4g}"
        )
    if (x.any(axis=1) != rounded.any(axis=1)).any():
        raise ValueError(f"a vector is so small that it is zero in {name}")


def decode_vectors(table: pa.Table) -> pa.Table:
    """Return a table with column `vector` in float32 and without `scale`, see schemas.store_as."""
    name = schemas.vector_type(table.schema)
    if name == "float32":
        return table
    decoded = matrix(table["vector"]).astype(np.float32)
    if name == "int8":
        decoded *= table[schemas.SCALE.name].to_numpy()[:, None]
        table = table.drop_columns([schemas.SCALE.name])
    return table.set_column(table.column_names.index("vector"), "vector", vectors(decoded))


def stored_columns(stored: pa.Schema, columns: list[str] | None) -> list[str] | None:
    """Return the columns to read: those asked for, and what decodes their vectors."""
    if columns is None or "vector" not in columns or schemas.vector_type(stored) != "int8":
        return columns
    return [*columns, schemas.SCALE.name]


def _check_stored(table: pa.Table, expected: pa.Schema, path: Path, first: int = 0) -> pa.Table:
    """Validate a table in the type in which its vectors are stored, and decode them."""
    if "vector" not in expected.names:
        return schemas.check(table, expected, str(path), first)
    name = schemas.vector_type(table.schema)
    checked = schemas.check(table, schemas.store_as(expected, name), str(path), first)
    if name == "float32":
        return checked
    return schemas.check(decode_vectors(checked), expected, str(path), first)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Replace the values of a column, whose type they have."""
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(place), values)


def vectors(array: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector(array.shape[1]))


def record(path: Path) -> dict[str, Any]:
    """Return the provenance of a file; empty for a third-party file without one."""
    try:
        metadata = pq.read_schema(files.require_plain(path)).metadata or {}
        return dict(json.loads(metadata.get(b"alignrec", b"{}")))
    except (ValueError, TypeError, RecursionError):
        return {}


def require_same_space(paths: Sequence[Path]) -> Sequence[Path]:
    common_fingerprint((path, record(path)) for path in paths)
    return paths


# Vectors with different fingerprints never form one set, even if equally wide. Third-party files
# have none: accepted.
def common_fingerprint(records: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    first_path: Path | None = None
    common: dict[str, Any] = {}
    for path, record in records:
        fingerprint = fingerprint_of(record)
        if not fingerprint:
            continue
        if first_path is None:
            first_path = path
            common = fingerprint
        elif difference := first_difference(common, fingerprint):
            raise UserError(
                f"{path}: not of one set with {first_path.name}: {difference}; make the set again"
            )
    return common


def fingerprint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of an untrusted record.

    Empty if it is missing or nested too deeply.
    """
    fingerprint = record.get(FINGERPRINT)
    if isinstance(fingerprint, dict) and _is_shallow(fingerprint, MAX_FINGERPRINT_LEVELS):
        return fingerprint
    return {}


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in inner)


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> str:
    for key in a:
        if key not in b or a[key] == b[key]:
            continue
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            place = within if key == "parts" else f"{within}{key}: "
            if difference := first_difference(a[key], b[key], place):
                return difference
        else:
            place = one_line(within + key, MAX_SHOWN_FINGERPRINT_CHARACTERS)
            values = [
                one_line(repr(side[key]), MAX_SHOWN_FINGERPRINT_CHARACTERS) for side in (a, b)
            ]
            return f"{place} {' and '.join(values)}"
    return ""


def shards(folder: Path, stem: str) -> list[Path]:
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no {stem}-*.parquet there; {files.made_by(folder)}")
    return paths


def shard(folder: Path, stem: str, number: int) -> Path:
    return folder / f"{stem}-{number:05d}.parquet"


def read_features(folder: Path) -> pa.Table:
    """Read a feature set in item order.

    Raise UserError if it has no shards or mixed fingerprints.
    """
    schema = schemas.features(width(folder))
    paths = require_same_space(shards(folder, "features"))
    table = pa.concat_tables([read_table(path, schema) for path in paths])
    _require_dense(folder, table, 0)
    return table


def read_vectors(folder: Path, rows: int) -> Iterator[np.ndarray]:
    schema = schemas.features(width(folder))
    first = 0
    for path in require_same_space(shards(folder, "features")):
        for part in read_slices(path, schema, ["item_id", "vector"], rows):
            _require_dense(folder, part, first)
            first += len(part)
            yield matrix(part["vector"])


def map_features(folder: Path) -> np.ndarray:
    """Return all vectors, float32 [I, F], memory-mapped from an unlinked file."""
    return writing.memory_map(read_vectors(folder, PART), folder)


def _require_dense(folder: Path, part: pa.Table, first: int) -> None:
    ids = part["item_id"].to_numpy()
    wrong = np.flatnonzero(ids != np.arange(first, first + len(ids)))
    if wrong.size:
        row = first + int(wrong[0])
        raise schemas.ContractError(
            f"{folder}: column 'item_id', row {row}: "
            f"{ids[wrong[0]]}, expected {row} (dense, in order)"
        )


def width(folder: Path) -> int:
    path = shards(folder, "features")[0]
    with reraise_faults(path):
        kind = pq.read_schema(path).field("vector").type
    if not pa.types.is_fixed_size_list(kind):
        raise schemas.ContractError(
            f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>"
        )
    return int(kind.list_size)


def read_codes(path: Path) -> pa.Table:
    with reraise_faults(path):
        levels = pq.read_schema(path).field("codes").type.list_size
    return read_table(path, schemas.semantic_ids(levels))


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
