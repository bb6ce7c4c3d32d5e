"""Another feature set after the processing that makes sets comparable: centred, PCA to one width, whitened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.config.base import Name, Positive, Section
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.errors import UserError
from pipeline.ops import whitening
from pipeline.ops.whitening import Whitening


class WhitenedParams(Section):
    """What kind `whitened` reads."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    width: Positive = 128
    """directions kept at most, those of most variance"""


def make(context: Context, params: WhitenedParams) -> Encoder:
    """Refuse: rows are made of the other set's rows, see `Whitened`."""
    raise UserError(f"'encoders.{context.name}': a whitened set has no network of its own")


WHITENED = Spec(make, WhitenedParams, portable=False)


class Whitened:
    """The maker of the rows of a whitened feature set."""

    def __init__(self, folder: Path, width: int, shard_rows: int) -> None:
        """Take the folder of the other set; it is read, and the whitening fitted, on the first call."""
        self._folder, self._width, self._shard_rows = folder, width, shard_rows
        self._fitted = cache(lambda: whitening.fit_pca(self._blocks, width))

    def __call__(self, start: int, stop: int) -> pa.Table:
        """Return the rows of items start .. stop-1, a shard of both sets: schema features(W)."""
        return self.of(_shard(io.shard(self._folder, "features", start // self._shard_rows)))

    def of(self, rows: pa.Table) -> pa.Table:
        """Return rows of the other set, or of a variant of it, whitened: schema features(F) -> features(W)."""
        fitted: Whitening = self._fitted()
        vectors = whitening.applied(fitted, io.matrix(rows["vector"]))
        return rows.set_column(rows.column_names.index("vector"), "vector", io.vectors(vectors))

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield the other set's vectors, a shard at a time."""
        return (io.matrix(_shard(path)["vector"]) for path in io.shards(self._folder, "features"))


def source(context: Context, params: WhitenedParams) -> Path:
    """Return the folder of the other feature set.

    Raises:
        UserError: the dataset has none such.
    """
    folder = context.layout.features(params.of)
    if not folder.is_dir():
        where = f"'encoders.{context.name}.of'"
        raise UserError(
            f"{where}: {context.layout.dataset} has no feature set '{params.of}'; import it or name another"
        )
    return folder


def _shard(path: Path) -> pa.Table:
    return io.read_table(path, schemas.features(pq.read_schema(path).field("vector").type.list_size))
