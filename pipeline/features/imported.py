"""Feature sets that come with a source, in files: .npy, a row an item, or .b, a record an ASIN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import io
from pipeline.errors import UserError
from pipeline.features.node import Items, Maker, Node, table
from pipeline.features.registry import TEXT
from pipeline.items import identifiers
from pipeline.ops.rows import unit_rows
from pipeline.sources import image_features
from pipeline.sources.image_features import FEATURE, ROWS, check_features


class File(NamedTuple):
    """A file and how it is read."""

    path: Path
    order: Path | None = None
    """mapping file that says which item each row of a .npy file is; None: row i is item i"""
    before: str = ""
    """feature set that is concatenated before it; both parts have length 1"""


def files(raw: Mapping[str, Path], asins: Sequence[str], encoders: Sequence[str]) -> dict[str, File]:
    """Return feature set -> file; image features by ASIN also concatenated with MiniLM, if that is encoded.

    UserError if a .npy file has not one row of numbers an item, or `feature_rows` names no item of the dataset.
    """
    order = raw.get(ROWS)
    check_features(raw, len(asins) if order is None else len(identifiers.order(order, asins)))
    given = {role.removeprefix(FEATURE): path for role, path in raw.items() if role.startswith(FEATURE)}
    found = {name: File(path, None if image_features.matches(path) else order) for name, path in given.items()}
    if TEXT in encoders:
        images = {name: path for name, path in given.items() if image_features.matches(path)}
        found |= {f"{TEXT}-{name}": File(path, before=TEXT) for name, path in images.items()}
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Imported(Node):
    """The rows of a file, beside those of the node that it is made of, if there is one."""

    file: File

    def maker(self, items: Items) -> Maker:
        """Return what reads the rows of a shard; which modalities those of a .npy file are made from is unknown."""
        if image_features.matches(self.file.path):
            return self._records(items)
        asins = items.ids["asin"].to_pylist()
        place = np.arange(len(asins))
        if self.file.order is not None:
            row = {asin: i for i, asin in enumerate(identifiers.order(self.file.order, asins))}
            place = np.array([row.get(asin, -1) for asin in asins])

        def make(start: int, stop: int) -> pa.Table:
            here = place[start:stop]
            unknown = pa.array(np.zeros(len(here), bool), mask=here >= 0)  # one without a row is made from nothing
            return table(items.ids.slice(start, stop - start), read_npy(self.file.path, here), unknown, unknown)

        return make

    def _records(self, items: Items) -> Maker:
        before = [node.made(items) for node in self.of]

        def make(start: int, stop: int) -> pa.Table:
            ids = items.ids.slice(start, stop - start)
            vectors, has_image = image_features.read(self.file.path, ids["asin"].to_pylist())
            has_text = np.zeros(len(ids), bool)
            for rows in (maker(start, stop) for maker in before):
                vectors = np.hstack([unit_rows(x)[0] for x in (io.matrix(rows["vector"]), vectors)])
                has_text = rows["has_text"].to_numpy()
            return table(ids, vectors, has_image, has_text)

        return make

    def inputs(self) -> list[Path]:
        """Return the file, and what says which item each row is."""
        order = [self.file.order] if self.file.order else []
        return [self.file.path, self.layout.item_ids, *order, *super().inputs()]

    def where(self) -> Path:
        """Return the file."""
        return self.file.path

    def incomplete(self) -> dict[str, int]:
        """Return how many items the file has no vector of."""
        flags = [pq.read_table(path, columns=["has_image", "has_text"]) for path in self.shards]
        nothing = [pc.and_(pc.invert(shard["has_image"]), pc.invert(shard["has_text"])) for shard in flags]
        return {"item without a vector": sum(pc.sum(shard).as_py() or 0 for shard in nothing)}


def read_npy(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return rows int64 [n] of a feature file, zeros for -1: float32 [n, F]; UserError if a value is not finite."""
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)[rows].astype(np.float32)
    vectors[rows < 0] = 0
    invalid = ~np.isfinite(vectors).all(axis=1)
    if invalid.any():
        raise UserError(f"{path}: row {int(rows[invalid.argmax()])}: a value is not finite; repair the file")
    return vectors
