"""Vectors of several encoders joined by linear algebra. Letters: n items, F and W widths.

Each block of numbers is centred, reduced by PCA, and each direction is divided by a power of its standard deviation.
Blocks are concatenated, each of length 1 times its weight. PCA may reduce that to one width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.ops import whitening
from pipeline.ops.linalg import unit_rows
from pipeline.ops.whitening import Whitening

# by default: width, power, and weight of image-only vectors, relative to 1 for all others
WIDTH, POWER, IMAGE = 128, 0.5, 0.6
# returns the vectors of all parts, float32 [n, F] each, some items at a time; may be called again
Parts = Callable[[], Iterable[Sequence[np.ndarray]]]


class Block(NamedTuple):
    """Numbers of a part that belong together."""

    part: int
    columns: np.ndarray  # bool [F]
    weight: float


@dataclass(frozen=True)
class Fit:
    """The map from the parts' vectors to one vector."""

    blocks: Sequence[Block]
    maps: Sequence[Whitening]  # of each block
    last: Whitening | None  # of all blocks side by side; None leaves them so

    @property
    def width(self) -> int:
        return int(self.last.map.shape[1] if self.last else sum(one.map.shape[1] for one in self.maps))

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [n, W] of the parts' vectors, float32 [n, F] each."""
        both = concatenate(self.blocks, self.maps, parts)
        return both if self.last is None else whitening.applied(self.last, both)


def fit(parts: Parts, blocks: Sequence[Block], width: int, power: float, reduced: bool = True) -> Fit:
    """Return the map of all parts, fitted to all items; memory grows with widths, not with items.

    At most `width` directions of each block stay, divided by that power of their standard deviation, and if `reduced`
    as many of the concatenation.
    """

    def own(block: Block) -> Whitening:
        return whitening.fit_pca(lambda: (x[block.part][:, block.columns] for x in parts()), width, power)

    maps = [own(block) for block in blocks]
    if not reduced:
        return Fit(blocks, maps, None)
    return Fit(blocks, maps, whitening.fit_pca(lambda: (concatenate(blocks, maps, x) for x in parts()), width, 0))


def concatenate(blocks: Sequence[Block], maps: Sequence[Whitening], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mapped blocks side by side, each of length 1 times its weight, float32 [n, sum of their widths]."""
    mapped = (whitening.applied(m, parts[b.part][:, b.columns]) for b, m in zip(blocks, maps, strict=True))
    return np.hstack([unit_rows(x)[0] * np.float32(b.weight) for b, x in zip(blocks, mapped, strict=True)])
