"""Feature sets that are a map of others, and the blocks of columns that these consist of.

The columns of each part are a block, or two if its image and its text have separate columns.

Letters: n items, F and W widths.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.config.base import Name, Positive, Section
from pipeline.errors import UserError
from pipeline.features.masked import Separable, blank, without
from pipeline.features.node import Items, Maker, Node, shard, table
from pipeline.ops import whitening
from pipeline.ops.joining import Block

Map = Callable[[Sequence[np.ndarray]], np.ndarray]  # the parts' vectors, float32 [n, F] each -> float32 [n, W]


class Gathered(Separable):
    """A map of all parts, fitted to all items."""

    stored = True

    @abstractmethod
    def fitted(self, items: Items) -> Map:
        """Return the map from the parts' vectors."""

    def parts(self) -> Iterator[list[np.ndarray]]:
        """Yield the parts' vectors, float32 [n, F] each, a shard at a time."""
        for paths in zip(*(node.shards for node in self.of), strict=True):
            yield [io.matrix(shard(path)["vector"]) for path in paths]

    def rows(self, items: Items) -> Maker:
        """UserError if there is no part."""
        if not self.of:
            raise UserError(
                f"'encoders.{self.name}': no encoder to build on; list one under encode.encoders, such as tfidf, or "
                "leave it out"
            )
        return self._mapped([node.read(items) for node in self.of], items)

    def hidden(self, modality: str, items: Items) -> Maker:
        return self._mapped([without(node, modality, items) for node in self.of], items)

    def _mapped(self, makers: list[Maker], items: Items) -> Maker:
        fitted = cache(lambda: self.fitted(items))

        def make(start: int, stop: int) -> pa.Table:
            rows = [maker(start, stop) for maker in makers]
            vectors = fitted()([io.matrix(part["vector"]) for part in rows])
            # a modality was used if any part used it; null if no part is known to have, and one is unknown
            flags = (reduce(pc.or_kleene, [part[flag] for part in rows]) for flag in ("has_image", "has_text"))
            return table(rows[0], vectors, *flags)

        return make


class WhitenedParams(Section):
    """Settings of kind `whitened`."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    width: Positive = 128
    """directions kept at most, those of most variance"""


class Whitened(Gathered):
    """A feature set, centred, reduced by PCA and whitened: the processing that makes sets comparable."""

    Params = WhitenedParams
    own: WhitenedParams

    def fitted(self, items: Items) -> Map:
        own = whitening.fit_pca(lambda: (x for (x,) in self.parts()), self.own.width)
        return lambda parts: whitening.applied(own, parts[0])


def blocks(nodes: Sequence[Node], items: Items, image: float) -> list[Block]:
    """Return the blocks of some sets; `image` is the weight of a block of images only."""
    return [block for i, node in enumerate(nodes) for block in _blocks(i, node, items, image)]


def _blocks(part: int, node: Node, items: Items, image: float) -> list[Block]:
    whole = np.ones(node.width(items), bool)
    if node.reads == ("image",):
        return [Block(part, whole, image)]
    zeroed = blank(node, "image", items) if "image" in node.reads else None
    if zeroed is None:
        return [Block(part, whole, 1.0)]
    text = zeroed(np.ones((1, len(whole)), np.float32))[0] != 0
    return [Block(part, text, 1.0), Block(part, ~text, image)]
