"""What linear algebra makes of all encoders at hand: the bar for every other feature set.

ops/joining.py brings all blocks of numbers to one vector, those of images alone at a weight. What the parameters leave
open of this, valid chooses among few ways; no interaction is learned from.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product, starmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline import io
from pipeline.config.base import Name, Positive, Section, Share, Weight
from pipeline.features.gathered import Gathered, blocks, refuse_nothing
from pipeline.features.node import Items
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Fit, fit

if TYPE_CHECKING:  # which loads torch
    from pipeline.encode.base import Progress

POWERS, IMAGES = (POWER, 0.3), (IMAGE, 0.3, 1.0)  # that valid chooses from


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
    """weight of image-only numbers, compared with 1 for all others; 0 leaves them out; none: .6, .3 or 1, by valid"""
    reduced: bool | None = None
    """whether PCA brings all parts together to `width`; none: by valid"""


class Linear(Gathered):
    """All parts brought to one width."""

    Params = LinearParams
    own: LinearParams

    def prepare(self, progress: Progress) -> None:
        """Try the ways on valid, and write which is the best, unless that is done."""
        from pipeline.features import search  # loads SciPy

        if self.of and self._by_valid and not self._tried.is_file():
            of = tuple(part.name for part in self.of)
            ways = [search.Candidate(of, way.power, way.image, "none", way.reduced) for way in self._ways]
            io.write_json(self._tried, search.judged(self, self.own.width, ways))

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
