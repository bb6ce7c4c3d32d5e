"""Vectors of a trained recommender on disk, read and written in blocks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.tables import reraise_faults
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run


class EmbeddingTable:
    """Column `vector` of a table, float32 [N, D]."""

    def __init__(self, path: Path, schema: Callable[[int], pa.Schema]) -> None:
        with reraise_faults(path):
            metadata = pq.read_metadata(path)
            vector_type = metadata.schema.to_arrow_schema().field("vector").type
            self.width = int(vector_type.list_size)
        self._path = path
        self._schema = schema(self.width)
        self._n_rows = metadata.num_rows

    def __len__(self) -> int:
        return self._n_rows

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield float32 [n, D] in order, n <= io.PART."""
        for part in io.read_slices(self._path, self._schema, ["vector"], io.PART):
            yield io.matrix(part["vector"])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows, int64 [M] ascending: float32 [M, D]."""
        vectors = np.empty((len(rows), self.width), np.float32)
        first_row = 0
        for part in self:
            next_row = first_row + len(part)
            start, stop = np.searchsorted(rows, [first_row, next_row])
            vectors[start:stop] = part[rows[start:stop] - first_row]
            first_row = next_row
        return vectors


def read_embeddings(layout: Layout) -> tuple[EmbeddingTable, EmbeddingTable]:
    """Open the vectors of users and items; UserError if missing or from different training runs."""
    user = layout.user_embeddings
    item = layout.item_embeddings
    io.require_same_space([path for path in (user, item) if path.is_file()])
    users = EmbeddingTable(user, schemas.user_embeddings)
    return users, EmbeddingTable(item, schemas.item_embeddings)


def write_embeddings(run: Run, user: np.ndarray, item: np.ndarray) -> int:
    """Write vectors [U, D] and [I, D] with names and a fingerprint of their space; return U + I."""
    layout = run.layout
    space = describe_space(layout, run.params[TrainSettings])

    users = io.read_table(layout.users, schemas.USERS)
    user_schema = schemas.user_embeddings(user.shape[1])
    _write_vectors(run, users, user, layout.user_embeddings, user_schema, space)

    items = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    item_schema = schemas.item_embeddings(item.shape[1])
    _write_vectors(run, items, item, layout.item_embeddings, item_schema, space)
    return len(user) + len(item)


def describe_space(layout: Layout, params: TrainSettings) -> dict[str, object]:
    """Everything that determines the vectors: features, settings and a digest of all inputs."""
    first_shard = io.shards(layout.features(params.features), "features")[0]
    return {
        "features": io.fingerprint_of(io.record(first_shard)),
        "train": params.facts(),
        "inputs": io.digest(inputs.input_files(layout, params.features)),
    }


def _write_vectors(
    run: Run,
    rows: pa.Table,
    vectors: np.ndarray,
    path: Path,
    schema: pa.Schema,
    space: dict[str, object],
) -> None:
    table = rows.append_column("vector", io.vectors(vectors))
    # one row group per block, which readers load one at a time
    blocks = (table.slice(start, io.PART) for start in range(0, len(table), io.PART))
    run.write_all(blocks, path, schema, **{io.FINGERPRINT: space})
