"""Baseline: PCA over all pre-trained encoders.

ops/joining.py reduces all blocks of columns to one vector, with a weight for those of images only. Valid chooses the
settings that the parameters leave open; nothing is fitted to interactions.
"""

from functools import cached_property
from itertools import product, starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import io
from pipeline.config.base import Name, Positive, Section, Share, Weight
from pipeline.encode.base import Progress
from pipeline.features.gathered import Gathered, blocks, refuse_nothing
from pipeline.features.node import Items
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Fit, fit

POWERS, IMAGES = (POWER, 0.3), (IMAGE, 0.3, 1.0)  # candidates


class Way(NamedTuple):
    """Candidate settings; see LinearParams."""

    power: float
    image: float
    reduced: bool


class LinearParams(Section):
    """Settings of kind `linear`."""

    of: list[Name] = []
    """feature sets that `encode.encoders` names, or imported ones; none: every encoder but those trained here"""
    width: Positive = WIDTH
    """directions kept at most, of each part and of all together"""
    power: Share | None = None
    """power of the standard deviation that each direction of a part is divided by: 1 whitens, 0 is plain PCA; none: .5
    or .3, by valid"""
    image: Weight | None = None
    """weight of image-only columns, compared with 1 for all others; 0 leaves them out; none: .6, .3 or 1, by valid"""
    reduced: bool | None = None
    """whether PCA reduces all parts together to `width`; none: by valid"""


class Linear(Gathered):
    """All parts reduced to one width."""

    Params = LinearParams
    own: LinearParams

    def prepare(self, progress: Progress) -> None:
        from pipeline.features import search  # loads SciPy

        if self.of and self._by_valid and not self._tried.is_file():
            of = tuple(part.name for part in self.of)
            ways = [search.Candidate(of, way.power, way.image, "none", way.reduced) for way in self._ways]
            io.write_json(self._tried, search.score(self, self.own.width, ways))

    def inputs(self) -> list[Path]:
        return [*super().inputs(), *([self.layout.interactions] if self._by_valid else [])]

    def fitted(self, items: Items) -> Fit:
        found = blocks(self.of, items, self.way.image)
        refuse_nothing(found, self)
        return fit(self.parts, found, self.own.width, self.way.power, self.way.reduced)

    @cached_property
    def way(self) -> Way:
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
        return self.folder / "tried.json"
