"""Other feature sets, concatenated."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.features.masked import Blank, Separable, blank, without
from pipeline.features.node import Items, Maker, table
from pipeline.ops.rows import unit_rows


class JoinedParams(Section):
    """Settings of kind `concat`."""

    of: Annotated[list[Name], Field(min_length=2)]
    """encoders, in order; those that `encode.encoders` names too are encoded once"""


class Joined(Separable):
    """Parts of length 1 each; an image or a text counts as used if any part used it."""

    Params = JoinedParams

    def rows(self, items: Items) -> Maker:
        return _concatenated([node.read(items) for node in self.of])

    def shared(self) -> list[Path]:
        unlisted = (path for node in self.of if not node.listed for path in node.shared())
        return list(dict.fromkeys([*self.sources, *unlisted]))

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        number = start // self.params.shard_rows
        return [
            io.sha256(io.shard(node.folder, "features", number)) if node.listed else node.own_inputs(items, start, stop)
            for node in self.of
        ]

    def hidden(self, modality: str, items: Items) -> Maker:
        return _concatenated([without(node, modality, items) for node in self.of])

    def apart(self, modality: str, items: Items) -> Blank | None:
        """Blank each part, which has length 1 again if something of it is left."""
        blanks = [one for node in self.of if (one := blank(node, modality, items))]
        if len(blanks) < len(self.of):
            return None
        ends = np.cumsum([node.width(items) for node in self.of])[:-1]
        rescaled = [len(node.reads) > 1 for node in self.of]

        def each(vectors: np.ndarray) -> np.ndarray:
            parts = [one(x) for one, x in zip(blanks, np.split(vectors, ends, axis=1), strict=True)]
            return np.hstack([unit_rows(x)[0] if again else x for x, again in zip(parts, rescaled, strict=True)])

        return each


def _concatenated(makers: list[Maker]) -> Maker:
    def make(start: int, stop: int) -> pa.Table:
        parts = [maker(start, stop) for maker in makers]
        vectors = np.hstack([unit_rows(io.matrix(part["vector"]))[0] for part in parts])
        flags = [np.logical_or.reduce([part[name].to_numpy() for part in parts]) for name in ("has_image", "has_text")]
        return table(parts[0], vectors, *flags)

    return make
