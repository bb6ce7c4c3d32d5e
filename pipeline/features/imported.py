"""Feature sets that come with a source, in files of any format of pipeline/vectors/."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import io
from pipeline.features.node import Items, Maker, Node, table
from pipeline.features.registry import TEXT
from pipeline.ops.linalg import unit_rows
from pipeline.vectors import matching
from pipeline.vectors.matching import File

OF_IMAGES = "records"  # format of features that are made only from images


class Import(NamedTuple):
    """A feature set that comes with a source."""

    file: File
    before: str = ""  # feature set that is concatenated before it; both parts have length 1


def imports(sources: Path, encoders: Sequence[str]) -> dict[str, Import]:
    """Return the feature sets that `sources.json` lists; those of images also concatenated with MiniLM, if encoded."""
    files = matching.files(sources)
    of_images = {name: file for name, file in files.items() if file.format == OF_IMAGES and TEXT in encoders}
    found = {name: Import(file) for name, file in files.items()}
    return found | {f"{TEXT}-{name}": Import(file, TEXT) for name, file in of_images.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Imported(Node):
    """The rows of a file, concatenated with those of the part, if there is one."""

    file: File

    def rows(self, items: Items) -> Maker:
        matched = self.file.matched(items.ids["asin"].to_pylist())
        before = [node.read(items) for node in self.of]

        def make(start: int, stop: int) -> pa.Table:
            ids, vectors = items.ids.slice(start, stop - start), matched.rows(start, stop)
            there = matched.place[start:stop] >= 0
            none = np.zeros(len(there), bool)
            unknown = pa.array(none, mask=there)  # an item without a row is made from nothing
            has_image, has_text = (pa.array(there), pa.array(none)) if matched.vectors.of_images else (unknown, unknown)
            for rows in (maker(start, stop) for maker in before):
                vectors = np.hstack([unit_rows(x)[0] for x in (io.matrix(rows["vector"]), vectors)])
                has_text = rows["has_text"]
            return table(ids, vectors, has_image, has_text)

        return make

    def inputs(self) -> list[Path]:
        order = [self.file.order] if self.file.order else []
        return [self.file.path, self.layout.item_ids, *order, *super().inputs()]

    def lacking(self) -> int:
        flags = [pq.read_table(path, columns=["has_image", "has_text"]) for path in self.shards]
        nothing = [pc.and_(pc.invert(shard["has_image"]), pc.invert(shard["has_text"])) for shard in flags]
        return sum(pc.sum(shard).as_py() or 0 for shard in nothing)
