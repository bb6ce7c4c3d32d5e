"""What linear algebra makes of all encoders at hand: the bar for every other feature set.

The numbers of each part, those of its images and of its texts apart where they stand apart, are centred, reduced by
PCA, and each direction is divided by a power of its standard deviation. All are put side by side, each of length 1,
those of images alone at a weight. PCA brings that to one width.

Letters: n items, F and W widths, B blocks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.config.base import Name, Positive, Section, Share, Weight
from pipeline.errors import UserError
from pipeline.features.node import Items, Maker, Node, shard, table
from pipeline.ops import whitening
from pipeline.ops.rows import unit_rows
from pipeline.ops.whitening import Whitening

Map = Callable[[Sequence[np.ndarray]], np.ndarray]
"""the parts' vectors, float32 [n, F] each -> float32 [n, W]"""
Parts = Callable[[], Iterable[Sequence[np.ndarray]]]
"""returns the vectors of all parts, float32 [n, F] each, some items at a time; may be called again"""


class LinearParams(Section):
    """What kind `linear` reads."""

    of: list[Name] = []
    """feature sets that `encode.encoders` names, or imported ones; none: every encoder but those trained here"""
    width: Positive = 128
    """directions kept at most, of each part and of all together"""
    power: Share = 0.5
    """of the standard deviation that each direction of a part is divided by: 1 whitens, 0 leaves PCA as it is"""
    image: Weight = 0.3
    """length of what is of images alone beside 1 of all else; 0 leaves it out"""


class Block(NamedTuple):
    """Numbers of a part that belong together."""

    part: int
    columns: np.ndarray
    """bool [F]"""
    weight: float


@dataclass(frozen=True)
class Fit:
    """The map from the parts' vectors to one vector."""

    blocks: Sequence[Block]
    maps: Sequence[Whitening]
    """of each block"""
    last: Whitening
    """of all blocks side by side"""

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [n, W] of the parts' vectors, float32 [n, F] each."""
        return whitening.applied(self.last, beside(self.blocks, self.maps, parts))


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
        """Return what maps the parts' rows; the map is fitted on the first call.

        Raises:
            UserError: there is no part.
        """
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


class Linear(Gathered):
    """All parts brought to one width."""

    Params = LinearParams
    own: LinearParams

    def fitted(self, items: Items) -> Map:
        """Return the map from the parts' vectors."""
        return fit(self.parts, blocks(self.of, items, self.own.image), self.own.width, self.own.power)


def fit(parts: Parts, blocks: Sequence[Block], width: int, power: float) -> Fit:
    """Return the map of all parts, fitted to all items; memory grows with widths, not with items.

    Args:
        parts: of all items.
        blocks: of the parts.
        width: directions kept at most, of each block and of all together.
        power: of the standard deviation that each direction of a block is divided by.
    """

    def own(block: Block) -> Whitening:
        return whitening.fit_pca(lambda: (x[block.part][:, block.columns] for x in parts()), width, power)

    maps = [own(block) for block in blocks]
    return Fit(blocks, maps, whitening.fit_pca(lambda: (beside(blocks, maps, x) for x in parts()), width, 0))


def beside(blocks: Sequence[Block], maps: Sequence[Whitening], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mapped blocks side by side, each of length 1 times its weight, float32 [n, sum of their widths]."""
    mapped = (whitening.applied(m, parts[b.part][:, b.columns]) for b, m in zip(blocks, maps, strict=True))
    return np.hstack([unit_rows(x)[0] * np.float32(b.weight) for b, x in zip(blocks, mapped, strict=True)])


def blocks(nodes: Sequence[Node], items: Items, image: float) -> list[Block]:
    """Return which numbers of some sets belong together; with an image weight of 0 those of images alone are left out.

    Args:
        nodes: the sets.
        items: what they are made for.
        image: weight of a block of images alone.
    """
    return [block for i, node in enumerate(nodes) for block in _blocks(i, node, items, image)]


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
