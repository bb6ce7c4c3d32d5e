"""What linear algebra makes of all encoders at hand: the bar for every other feature set.

The numbers of each part are a block, or two where its image and its text stand apart. ops/joining.py brings all blocks
to one vector, those of images alone at a weight. What the parameters leave open of this, valid chooses among few ways;
no interaction is learned from.

Letters: n items, F and W widths.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from itertools import product, starmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.config.base import Name, Positive, Section, Share, Weight
from pipeline.errors import UserError
from pipeline.features import sameness
from pipeline.features.node import Items, Maker, Node, shard, table
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Block, Fit, fit

if TYPE_CHECKING:  # which loads torch
    from pipeline.encode.base import Progress

Map = Callable[[Sequence[np.ndarray]], np.ndarray]
"""the parts' vectors, float32 [n, F] each -> float32 [n, W]"""


POWERS, IMAGES = (POWER, 0.3), (IMAGE, 0.6, 1.0)
"""that valid chooses from"""


class Way(NamedTuple):
    """One way to make the set; see LinearParams."""

    power: float
    image: float
    reduced: bool


class LinearParams(Section):
    """What kind `linear` reads."""

    of: list[Name] = []
    """feature sets that `encode.encoders` names, or imported ones; none: every encoder but those trained here"""
    width: Positive = WIDTH
    """directions kept at most, of each part and of all together"""
    power: Share | None = None
    """of the standard deviation that each direction of a part is divided by: 1 whitens, 0 leaves PCA as it is; none: .5
    or .3, by valid"""
    image: Weight | None = None
    """length of what is of images alone beside 1 of all else; 0 leaves it out; none: .3, .6 or 1, by valid"""
    reduced: bool | None = None
    """whether PCA brings all parts together to `width`; none: by valid"""


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


class Linear(Gathered):
    """All parts brought to one width."""

    Params = LinearParams
    own: LinearParams

    def prepare(self, progress: Progress) -> None:
        """Try the ways on valid, and write which is the best, unless that is done."""
        from pipeline.features import search  # loads SciPy

        super().prepare(progress)
        if self.of and self._by_valid and not self._tried.is_file():
            io.write_json(self._tried, search.judged(self, self._ways))

    def inputs(self) -> list[Path]:
        """Return the other sets' files, and where valid chooses the interactions."""
        return [*super().inputs(), *([self.layout.interactions] if self._by_valid else [])]

    def fitted(self, items: Items) -> Fit:
        """Return the map from the parts' vectors."""
        found = blocks(self.of, items, self.way.image)
        refuse_nothing(found, self)
        return fit(self.parts, found, self.own.width, self.way.power, self.way.reduced)

    @cached_property
    def way(self) -> Way:
        """The best on valid, the first of several; where there is no valid, the first."""
        scores = io.read_json(self._tried) if self._tried.is_file() else []
        return self._ways[int(np.argmax(scores)) if scores else 0]

    @property
    def _ways(self) -> list[Way]:
        own = self.own
        powers, images = (POWERS if own.power is None else (own.power,)), IMAGES if own.image is None else (own.image,)
        return list(starmap(Way, product(powers, images, (True, False) if own.reduced is None else (own.reduced,))))

    @property
    def _by_valid(self) -> bool:
        return len(self._ways) > 1 and self.layout.interactions.is_file()

    @property
    def _tried(self) -> Path:
        """Root of warm times cold Recall on valid of each of the ways, in order; see search.py."""
        return self.folder / "tried.json"


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
