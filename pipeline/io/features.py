"""Feature sets on disk: Parquet shards in item order."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.io import files
from alignrec.pipeline.io.tables import PART, matrix, one_set, read_slices, read_table, reraise_faults


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
    table = pa.concat_tables([read_table(p, schema) for p in one_set(shards(folder, "features"))])
    _require_dense(folder, table, 0)
    return table


def read_codes(path: Path) -> pa.Table:
    with reraise_faults(path):
        levels = pq.read_schema(path).field("codes").type.list_size
    return read_table(path, schemas.semantic_ids(levels))


def map_features(folder: Path) -> np.ndarray:
    """Return all vectors, float32 [I, F], memory-mapped from an unlinked file."""
    return files.mapped(read_vectors(folder, PART), folder)


def read_vectors(folder: Path, rows: int) -> Iterator[np.ndarray]:
    schema, first = schemas.features(width(folder)), 0
    for path in one_set(shards(folder, "features")):
        for part in read_slices(path, schema, ["item_id", "vector"], rows):
            _require_dense(folder, part, first)
            first += len(part)
            yield matrix(part["vector"])


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
        raise schemas.ContractError(f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>")
    return int(kind.list_size)
