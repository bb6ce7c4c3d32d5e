"""Other feature sets side by side."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.features.node import Blank, Items, Maker, Node, table
from pipeline.ops.rows import unit_rows


class JoinedParams(Section):
    """What kind `concat` reads."""

    of: Annotated[list[Name], Field(min_length=2)]
    """encoders, in order; those that `encode.encoders` names too are encoded once"""


class Joined(Node):
    """Each part scaled to length 1; an image or a text counts as used if any part used it."""

    Params = JoinedParams

    def maker(self, items: Items) -> Maker:
        """Return what makes the rows of the parts and puts them side by side."""
        return _beside([node.made(items) for node in self.of])

    def shared(self) -> list[Path]:
        """Return what all rows of parts depend on that are not written."""
        return list(dict.fromkeys([*self.sources, *(path for node in self._unwritten for path in node.shared())]))

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        """Return a hash of the parts' shards, or of what they are made of."""
        number = start // self.params.shard_rows
        return [
            node.own_inputs(items, start, stop)
            if node in self._unwritten
            else io.sha256(io.shard(node.folder, "features", number))
            for node in self.of
        ]

    @property
    def _unwritten(self) -> list[Node]:
        return [node for node in self.of if not node.listed]

    def hidden(self, modality: str, items: Items) -> Maker:
        """Return what puts the parts without the modality side by side."""
        return _beside([node.without(modality, items) for node in self.of])

    def apart(self, modality: str, items: Items) -> Blank | None:
        """Return what blanks each part by itself, scaled to length 1 again if something of it is left."""
        blanks = [node.blank(modality, items) for node in self.of]
        if None in blanks:
            return None
        ends = np.cumsum([node.width(items) for node in self.of])[:-1]
        rescaled = [len(node.reads) > 1 for node in self.of]

        def each(vectors: np.ndarray) -> np.ndarray:
            parts = [one(x) for one, x in zip(blanks, np.split(vectors, ends, axis=1), strict=True) if one is not None]
            return np.hstack([unit_rows(x)[0] if again else x for x, again in zip(parts, rescaled, strict=True)])

        return each


def _beside(makers: list[Maker]) -> Maker:
    def make(start: int, stop: int) -> pa.Table:
        parts = [maker(start, stop) for maker in makers]
        vectors = np.hstack([unit_rows(io.matrix(part["vector"]))[0] for part in parts])
        flags = [np.logical_or.reduce([part[name].to_numpy() for part in parts]) for name in ("has_image", "has_text")]
        return table(parts[0], vectors, *flags)

    return make
