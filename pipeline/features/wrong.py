"""Another feature set made of wrong content: images or texts of another item, or noise. Letters: I items, F width."""

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
from pipeline.features.node import Items, Maker, Node, changed
from pipeline.seeds import seed_for


class WrongParams(Section):
    """What kind `wrong` reads."""

    of: Name
    """a feature set that `encode.encoders` names"""
    what: Literal["image", "text", "noise"]
    """image, text: each item has that of another item, by one cycle over all of them; noise: normal numbers with the
    mean and deviation of each column, in place of every vector that is not zero"""


class Wrong(Node):
    """A feature set of which something is not the item's own."""

    Params = WrongParams
    own: WrongParams
    stored = True

    def maker(self, items: Items) -> Maker:
        """Return what cuts a shard out of rows that are made at once; UserError if the set lacks the modality."""
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
        """Return the other set's files, and those that it is encoded from again."""
        return list(dict.fromkeys([*super().inputs(), *self.of[0].inputs()]))

    def source(self, n_items: int) -> np.ndarray:
        """Return whose image or text each item has, int64 [I]."""
        return shuffled(n_items, self._seed)

    @property
    def _seed(self) -> int:
        return seed_for("wrong", self.layout.dataset, self.params.seed)

    def _rows(self, items: Items) -> pa.Table:
        rows = io.read_features(self.of[0].folder)
        vectors = io.matrix(rows["vector"])
        if self.own.what == "noise":
            return changed(rows, "vector", io.vectors(noise(vectors, self._seed)))
        if (mixed := self._apart(vectors, items)) is not None:
            return changed(rows, "vector", io.vectors(mixed))
        return self._encoded(rows, items)

    def _apart(self, vectors: np.ndarray, items: Items) -> np.ndarray | None:
        """Return numbers of one modality beside the other's of another item; None where they do not stand apart."""
        blanks = [self.of[0].blank(modality, items) for modality in MODALITIES]
        if None in blanks:
            return None
        text, image = (blank(vectors) for blank in blanks if blank)  # what is left without the other
        if not np.array_equal(text + image, vectors):
            return None
        other = self.source(len(vectors))
        return np.asarray(text[other] + image if self.own.what == "text" else text + image[other], np.float32)

    def _encoded(self, rows: pa.Table, items: Items) -> pa.Table:
        """Encode each image with the text of another item; a wrong image is that of the item whose text is this one."""
        own, other = rows["item_id"], self.source(len(rows))
        if self.own.what == "image":
            other = np.argsort(other)  # the item that has this one's image, whose text is given to it
        texts, size = items.texts.slice(0, len(rows)).take(other), self.params.shard_rows
        make = fresh(self.of[0]).maker(replace(items, texts=texts))
        made = pa.concat_tables(make(at, min(at + size, len(rows))) for at in range(0, len(rows), size))
        if self.own.what == "text":
            return made
        made = made.take(self.source(len(rows)))
        return changed(changed(made, "item_id", own), "asin", rows["asin"])


def fresh(node: Node) -> Node:
    """Return a node whose parts are not read where `encode` wrote them, but for those that read no text."""
    parts = tuple(fresh(part) if "text" in part.reads else part for part in node.of)
    return replace(node, listed=False, of=parts)


def noise(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return normal numbers with each column's mean and deviation, float32 [I, F]; rows of zeros stay zero."""
    nonzero = vectors.any(1)
    rows = vectors[nonzero].astype(np.float64)
    drawn = np.zeros(vectors.shape, np.float32)
    drawn[nonzero] = rows.mean(0) + rows.std(0) * np.random.default_rng(seed).standard_normal(rows.shape)
    return drawn
