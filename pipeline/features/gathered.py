"""Feature sets that are a map of others, and the blocks of numbers that these are made of.

The numbers of each part are a block, or two where its image and its text stand apart.

Letters: n items, F and W widths.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.errors import UserError
from pipeline.features import sameness
from pipeline.features.node import Items, Maker, Node, shard, table
from pipeline.ops.joining import Block

Map = Callable[[Sequence[np.ndarray]], np.ndarray]  # the parts' vectors, float32 [n, F] each -> float32 [n, W]


class Gathered(Node):
    """A map of all that it is made of, fitted to all items."""

    stored = True

    @abstractmethod
    def fitted(self, items: Items) -> Map:
        """Return the map from the parts' vectors."""

    def parts(self) -> Iterator[list[np.ndarray]]:
        """Yield the parts' vectors, float32 [n, F] each, a shard at a time."""
        for paths in zip(*(node.shards for node in self.of), strict=True):
            yield [io.matrix(shard(path)["vector"]) for path in paths]

    def maker(self, items: Items) -> Maker:
        """Return what maps the parts' rows; the map is fitted on the first call. UserError if there is no part."""
        if not self.of:
            raise UserError(
                f"'encoders.{self.name}': no encoder is at hand to make it of; list one under encode.encoders, such as "
                "tfidf, or leave it out"
            )
        return self._mapped([node.made(items) for node in self.of], items)

    def hidden(self, modality: str, items: Items) -> Maker:
        """Return what maps the parts' rows without the modality, as the whole ones are mapped."""
        return self._mapped([node.without(modality, items) for node in self.of], items)

    def _mapped(self, makers: list[Maker], items: Items) -> Maker:
        fitted = cache(lambda: self.fitted(items))

        def make(start: int, stop: int) -> pa.Table:
            rows = [maker(start, stop) for maker in makers]
            vectors = fitted()([io.matrix(part["vector"]) for part in rows])
            return table(rows[0], vectors, *(_any(rows, flag) for flag in ("has_image", "has_text")))

        return make


def blocks(nodes: Sequence[Node], items: Items, image: float, telling: Sequence[bool] | None = None) -> list[Block]:
    """Return which numbers of some sets belong together; with an image weight of 0 those of images alone are left out.

    A set that tells no items apart is left out too.

    Args:
        image: weight of a block of images alone.
        telling: whether each set tells items apart; by default its files say so.
    """
    told = [tells(node) for node in nodes] if telling is None else telling
    return [block for i, node in enumerate(nodes) if told[i] for block in _blocks(i, node, items, image)]


def tells(node: Node) -> bool:
    """Return whether a set tells items apart: one of zeros, or of one vector for all, only divides by nothing."""
    seen = sameness.look(node.shards)
    return seen.items < 2 or not seen.equal


def refuse_nothing(found: Sequence[Block], node: Node) -> None:
    """Raise UserError for a set that would be made of no block."""
    if not found:
        names = ", ".join(part.name for part in node.of)
        raise UserError(f"'encoders.{node.name}': none of {names} tells the items apart; leave it out")


def _blocks(part: int, node: Node, items: Items, image: float) -> list[Block]:
    """Return the blocks of a part: one, or two where image and text stand apart."""
    whole = np.ones(node.width(items), bool)
    if node.reads == ("image",):
        return [Block(part, whole, image)] if image else []
    blank = node.blank("image", items) if "image" in node.reads else None
    if blank is None:
        return [Block(part, whole, 1.0)]
    text = blank(np.ones((1, len(whole)), np.float32))[0] != 0
    return [Block(part, text, 1.0), *([Block(part, ~text, image)] if image else [])]


def _any(rows: list[pa.Table], flag: str) -> pa.ChunkedArray:
    """Return whether any part used a modality; null where none is known to have, and one is not known."""
    used = rows[0][flag]
    for part in rows[1:]:
        used = pc.or_kleene(used, part[flag])
    return used
