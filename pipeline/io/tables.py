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
# key of the provenance that identifies a file's vector space: kind, settings, model, prompt, weights, image size
FINGERPRINT = "fingerprint"
SHOWN = 40  # characters of a fingerprint's value shown in messages
DEEPEST = 16  # maximum nesting levels of a fingerprint
LARGE = (
    16 << 20
)  # bytes above which a row group is memory-mapped: reading a part would load all of it
# guards against decompression bombs: bytes of memory that any table may take, and the maximum ratio to its size on
# disk above that; constant vectors reach a few hundred
SMALL, EXPANSION = 1 << 30, 10_000


def write_table(
    table: pa.Table, path: Path, schema: pa.Schema, record: dict[str, Any] | None = None
) -> None:
    """Validate a table and write it atomically, with its provenance as JSON metadata under `alignrec`."""
    table = schemas.check(table, schema, str(path))
    if record is not None:
        table = table.replace_schema_metadata({"alignrec": json.dumps(record, sort_keys=True)})
    with writing.atomic(path) as temporary:
        pq.write_table(table, temporary, **PARQUET)


def write_tables(
    tables: Iterable[pa.Table], path: Path, schema: pa.Schema, record: dict[str, Any] | None = None
) -> None:
    """Write tables as row groups of one file, one in memory at a time; see `write_table`."""
    kept = schema.with_metadata(
        {} if record is None else {"alignrec": json.dumps(record, sort_keys=True)}
    )
    with writing.atomic(path) as temporary, pq.ParquetWriter(temporary, kept, **PARQUET) as file:
        for table in tables:
            file.write_table(
                schemas.check(table, schema, str(path)).replace_schema_metadata(kept.metadata)
            )


def read_tables(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    first = 0
    with reraise_faults(path), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            yield schemas.check(table, schema, str(path), first)
            first += len(table)


def read_slices(
    path: Path, schema: pa.Schema, columns: list[str] | None, rows: int
) -> Iterator[pa.Table]:
    expected, first = _select_fields(schema, columns), 0
    with reraise_faults(path):
        metadata = pq.read_metadata(path)
    largest = max(
        (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)), default=0
    )
    # without pre_buffer=False, all row groups are read ahead
    options = {"metadata": metadata, "memory_map": largest > LARGE, "pre_buffer": False}
    with reraise_faults(path), pq.ParquetFile(path, **options) as file:
        for batch in file.iter_batches(rows, columns=columns):
            table = pa.Table.from_batches([batch])
            yield schemas.check(
                table if columns is None else table.select(columns), expected, str(path), first
            )
            first += len(table)
        if not first and columns is None:
            schemas.check(file.schema_arrow.empty_table(), expected, str(path))


def read_rows(path: Path, schema: pa.Schema, columns: list[str], start: int, rows: int) -> pa.Table:
    with reraise_faults(path), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        firsts = np.cumsum([0, *sizes])
        holding = [
            g
            for g, size in enumerate(sizes)
            if firsts[g] < start + rows and start < firsts[g] + size
        ]
        table = file.read_row_groups(holding, columns).select(columns)
    table = table.slice(start - firsts[holding[0]] if holding else 0, rows)
    return schemas.check(table, _select_fields(schema, columns), str(path))


class Texts:
    """Lazy column `text` of an ITEMS file, in item order."""

    def __init__(self, path: Path) -> None:
        read_table(path, schemas.ITEMS, [])
        self.path, self._len = path, rows([path])

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        for part in read_slices(self.path, schemas.ITEMS, ["text"], PART):
            yield from part["text"].to_pylist()

    def slice(self, start: int, length: int) -> pa.ChunkedArray:
        return read_rows(self.path, schemas.ITEMS, ["text"], start, length)["text"]


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read columns of a Parquet file; raise UserError if it is unreadable, schemas.ContractError if invalid."""
    with (
        reraise_faults(path),
        pq.ParquetFile(path) as f,
    ):  # pq.read_table would import pyarrow.dataset
        table = f.read(columns)
    return schemas.check(table, _select_fields(schema, columns), str(path))


def _select_fields(schema: pa.Schema, columns: list[str] | None) -> pa.Schema:
    return schema if columns is None else pa.schema([schema.field(c) for c in columns])


@contextmanager
def reraise_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {files.made_by(path)}") from None
    except (pa.ArrowInvalid, UnicodeDecodeError, KeyError, OSError) as e:
        fault = " ".join(str(e).split())
        raise UserError(
            f"{path}: not a readable Parquet file ({fault}); {files.made_by(path)}"
        ) from None


def rows(paths: Iterable[Path]) -> int:
    return sum(pq.read_metadata(path).num_rows for path in paths)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    width = column.type.list_size
    flat = [np.asarray(c.flatten().to_numpy(zero_copy_only=False)) for c in column.chunks]
    return np.concatenate(flat).reshape(-1, width) if flat else np.empty((0, width), np.float32)


def vectors(array: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector(array.shape[1]))


def record(path: Path) -> dict[str, Any]:
    """Return the provenance of a file; empty for a third-party file without one."""
    try:
        return dict(json.loads((pq.read_schema(path).metadata or {}).get(b"alignrec", b"{}")))
    except (ValueError, TypeError, RecursionError):
        return {}


def require_same_space(paths: Sequence[Path]) -> Sequence[Path]:
    common_fingerprint((path, record(path)) for path in paths)
    return paths


def fingerprint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of an untrusted record; empty if it is missing or nested too deeply."""
    found = record.get(FINGERPRINT)
    return found if isinstance(found, dict) and _is_shallow(found, DEEPEST) else {}


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> str:
    for key in (key for key in a if key in b):
        x, y = a[key], b[key]
        if isinstance(x, dict) and isinstance(y, dict):
            if found := first_difference(x, y, within if key == "parts" else f"{within}{key}: "):
                return found
        elif x != y:
            return f"{one_line(within + key, SHOWN)} {one_line(repr(x), SHOWN)} and {one_line(repr(y), SHOWN)}"
    return ""


# Vectors with different fingerprints never form one set, even if equally wide. Third-party files have none: accepted.
def common_fingerprint(records: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    first: tuple[Path, dict[str, Any]] | None = None
    for path, record in records:
        own = fingerprint_of(record)
        if not own:
            continue
        first = first or (path, own)
        if found := first_difference(first[1], own):
            raise UserError(
                f"{path}: not of one set with {first[0].name}: {found}; make the set again"
            )
    return first[1] if first else {}


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


def shards(folder: Path, stem: str) -> list[Path]:
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no {stem}-*.parquet there; {files.made_by(folder)}")
    return paths


def shard(folder: Path, stem: str, number: int) -> Path:
    return folder / f"{stem}-{number:05d}.parquet"


def read_features(folder: Path) -> pa.Table:
    """Read a feature set in item order; raise UserError if it has no shards or mixed fingerprints."""
    schema = schemas.features(width(folder))
    table = pa.concat_tables(
        [read_table(p, schema) for p in require_same_space(shards(folder, "features"))]
    )
    _require_dense(folder, table, 0)
    return table


def read_codes(path: Path) -> pa.Table:
    with reraise_faults(path):
        levels = pq.read_schema(path).field("codes").type.list_size
    return read_table(path, schemas.semantic_ids(levels))


def map_features(folder: Path) -> np.ndarray:
    """Return all vectors, float32 [I, F], memory-mapped from an unlinked file."""
    return writing.memory_map(read_vectors(folder, PART), folder)


def read_vectors(folder: Path, rows: int) -> Iterator[np.ndarray]:
    schema, first = schemas.features(width(folder)), 0
    for path in require_same_space(shards(folder, "features")):
        for part in read_slices(path, schema, ["item_id", "vector"], rows):
            _require_dense(folder, part, first)
            first += len(part)
            yield matrix(part["vector"])


def column_sizes(path: Path) -> Iterator[tuple[pq.ColumnSchema, int, int]]:
    """Yield columns of row groups, their rows and bytes in memory, by an untrusted footer; UserError for a bomb."""
    memory, most = 0, max(SMALL, EXPANSION * path.stat().st_size)
    with pq.ParquetFile(path, pre_buffer=False, memory_map=True) as file:
        columns = [file.schema.column(i) for i in range(len(file.schema))]
        for number in range(file.num_row_groups if columns else 0):
            # wrong size statistics are an error of this reader, which reads no rows, but end the process in `column`
            list(file.reader.iter_batches(0, [number], range(len(columns))))
            group = file.metadata.row_group(number)
            for chunk, column in zip(map(group.column, range(len(columns))), columns, strict=True):
                size = max(
                    0, chunk.total_uncompressed_size, chunk.num_values * max(4, column.length)
                )
                if (memory := memory + size) > most:
                    raise UserError(
                        f"{path}: takes {memory:,} bytes of memory, from {path.stat().st_size:,} on disk"
                    )
                yield column, group.num_rows, size


def _require_dense(folder: Path, part: pa.Table, first: int) -> None:
    ids = part["item_id"].to_numpy()
    if (wrong := np.flatnonzero(ids != np.arange(first, first + len(ids)))).size:
        row = int(wrong[0])
        raise schemas.ContractError(
            f"{folder}: column 'item_id', row {first + row}: {ids[row]}, expected {first + row} (dense, in order)"
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
