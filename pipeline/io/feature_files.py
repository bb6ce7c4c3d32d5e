"""Feature sets: a folder of Parquet shards in item order; and files of semantic IDs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline.io import files, writing
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.provenance import require_same_space
from alignrec.pipeline.io.tables import PART, read_slices, read_table, reraise_faults
from alignrec.pipeline.io.vector_columns import matrix


def shards(folder: Path, stem: str) -> list[Path]:
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no {stem}-*.parquet there; {files.made_by(folder)}")
    return paths


def shard(folder: Path, stem: str, number: int) -> Path:
    return folder / f"{stem}-{number:05d}.parquet"


def width(folder: Path) -> int:
    path = shards(folder, "features")[0]
    with reraise_faults(path):
        kind = pq.read_schema(path).field("vector").type
    if not pa.types.is_fixed_size_list(kind):
        raise schemas.ContractError(
            f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>"
        )
    return int(kind.list_size)


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


def read_codes(path: Path) -> pa.Table:
    with reraise_faults(path):
        levels = pq.read_schema(path).field("codes").type.list_size
    return read_table(path, schemas.semantic_ids(levels))
