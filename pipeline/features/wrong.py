"""Another feature set with images or texts of other items, or noise. Letters: I items, F width."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.encode.params import MODALITIES
from pipeline.errors import UserError
from pipeline.features.control import shuffled
from pipeline.features.masked import blank
from pipeline.features.node import Items, Maker, Node, changed
from pipeline.seeds import seed_for


class WrongParams(Section):
    """Settings of kind `wrong`."""

    of: Name
    """a feature set that `encode.encoders` names"""
    what: Literal["image", "text", "noise"]
    """image, text: each item has that of another item, by one cycle over all of them; noise: normal numbers with the
    mean and deviation of each column, in place of every vector that is not zero"""


class Wrong(Node):
    """A feature set with content that is not the item's own."""

    Params = WrongParams
    own: WrongParams
    stored = True

    def rows(self, items: Items) -> Maker:
        """All rows are made at the first call; UserError if the set lacks the modality."""
        (node,) = self.of
        if self.own.what != "noise" and set(node.reads) != {*MODALITIES}:
            raise UserError(f"'encoders.{self.name}': {node.name} does not read image and text; leave it out")
        made: list[pa.Table] = []

        def make(start: int, stop: int) -> pa.Table:
            if not made:
                made.append(self._rows(replace(items, done=int, elsewhere=None)))
            return made[0].slice(start, stop - start)

        return make

    def inputs(self) -> list[Path]:
        return list(dict.fromkeys([*super().inputs(), *self.of[0].inputs()]))

    def source(self, n_items: int) -> np.ndarray:
        """Return the item whose image or text each item has, int64 [I]."""
        return shuffled(n_items, self._seed)

    @property
    def _seed(self) -> int:
        return seed_for("wrong", self.layout.dataset, self.params.seed)

    def _rows(self, items: Items) -> pa.Table:
        rows = io.read_features(self.of[0].folder)
        vectors = io.matrix(rows["vector"])
        if self.own.what == "noise":
            return changed(rows, "vector", io.vectors(noise(vectors, self._seed)))
        if (mixed := self._mixed(vectors, items)) is not None:
            return changed(rows, "vector", io.vectors(mixed))
        return self._encoded(rows, items)

    def _mixed(self, vectors: np.ndarray, items: Items) -> np.ndarray | None:
        """Return vectors with the columns of one modality from another item; None if columns are not separate."""
        blanks = [one for modality in MODALITIES if (one := blank(self.of[0], modality, items))]
        if len(blanks) < len(MODALITIES):
            return None
        text, image = (one(vectors) for one in blanks)  # what is left without the other
        if not np.array_equal(text + image, vectors):
            return None
        other = self.source(len(vectors))
        return np.asarray(text[other] + image if self.own.what == "text" else text + image[other], np.float32)

    def _encoded(self, rows: pa.Table, items: Items) -> pa.Table:
        """Encode each image with the text of another item; a wrong image belongs to the item that has this text."""
        own, other = rows["item_id"], self.source(len(rows))
        if self.own.what == "image":
            other = np.argsort(other)  # the item that has this one's image, whose text is given to it
        texts, size = items.texts.slice(0, len(rows)).take(other), self.params.shard_rows
        make = fresh(self.of[0]).rows(replace(items, texts=texts))
        made = pa.concat_tables(make(at, min(at + size, len(rows))) for at in range(0, len(rows), size))
        made = made.select(rows.column_names)
        if self.own.what == "text":
            return made
        made = made.take(self.source(len(rows)))
        return changed(changed(made, "item_id", own), "asin", rows["asin"])


def fresh(node: Node) -> Node:
    """Return a node whose parts are encoded again, except those that read no text."""
    parts = tuple(fresh(part) if "text" in part.reads else part for part in node.of)
    return replace(node, listed=False, of=parts)


def noise(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return normal numbers with each column's mean and deviation, float32 [I, F]; rows of zeros stay zero."""
    nonzero = vectors.any(1)
    rows = vectors[nonzero].astype(np.float64)
    drawn = np.zeros(vectors.shape, np.float32)
    drawn[nonzero] = rows.mean(0) + rows.std(0) * np.random.default_rng(seed).standard_normal(rows.shape)
    return drawn
