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


class Embeddings:
    """Column `vector` of a table, float32 [N, D]."""

    def __init__(self, path: Path, schema: Callable[[int], pa.Schema]) -> None:
        with reraise_faults(path):
            metadata = pq.read_metadata(path)
            self.width = int(metadata.schema.to_arrow_schema().field("vector").type.list_size)
        self._path, self._schema, self._len = path, schema(self.width), metadata.num_rows

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield float32 [n, D] in order, n <= io.PART."""
        for part in io.read_slices(self._path, self._schema, ["vector"], io.PART):
            yield io.matrix(part["vector"])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows, int64 [M] ascending: float32 [M, D]."""
        taken, first = np.empty((len(rows), self.width), np.float32), 0
        for part in self:
            a, b = np.searchsorted(rows, [first, first + len(part)])
            taken[a:b] = part[rows[a:b] - first]
            first += len(part)
        return taken

    def read(self) -> np.ndarray:
        return self.take(np.arange(len(self)))


def read_embeddings(layout: Layout) -> tuple[Embeddings, Embeddings]:
    """Open the vectors of users and items; UserError if missing or from different training runs."""
    paths = layout.user_embeddings, layout.item_embeddings
    io.one_set([path for path in paths if path.is_file()])
    user, item = paths
    return Embeddings(user, schemas.user_embeddings), Embeddings(item, schemas.item_embeddings)


def write_embeddings(run: Run, user: np.ndarray, item: np.ndarray) -> int:
    """Write vectors [U, D] and [I, D] with names and a fingerprint of their space; return U + I."""
    layout, own = run.layout, run.params[TrainSettings]
    vectors = io.fingerprint_of(io.record(io.shards(layout.features(own.features), "features")[0]))
    read = io.digest(inputs.input_files(layout, own.features))
    space = {io.FINGERPRINT: {"features": vectors, "train": own.facts(), "inputs": read}}
    for ids, columns, of, path, schema in (
        (layout.users, schemas.USERS, user, layout.user_embeddings, schemas.user_embeddings),
        (layout.item_ids, schemas.ITEM_IDS, item, layout.item_embeddings, schemas.item_embeddings),
    ):
        table = io.read_table(ids, columns).append_column("vector", io.vectors(of))
        # one row group per block, which readers load one at a time
        parts = (table.slice(at, io.PART) for at in range(0, len(table), io.PART))
        run.write_all(parts, path, schema(of.shape[1]), **space)
    return len(user) + len(item)
