"""Vectors of several encoders joined by linear algebra. Letters: n items, F and W widths.

Each block of numbers is centred, reduced by PCA, and each direction is divided by a power of its standard deviation.
Blocks are concatenated, each of length 1 times its weight. PCA may reduce that to one width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from alignrec.pipeline.ops import whitening
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.ops.whitening import Whitening

# by default: width, power, and weight of image-only vectors, relative to 1 for all others
WIDTH, POWER, IMAGE = 128, 0.5, 0.6
# returns the vectors of all parts, float32 [n, F] each, some items at a time; may be called again
Parts = Callable[[], Iterable[Sequence[np.ndarray]]]


class Columns(Protocol):
    """Consecutive columns of a part that are made of the same modalities."""

    @property
    def reads(self) -> Sequence[str]: ...

    @property
    def width(self) -> int: ...


class Block(NamedTuple):
    """Numbers of a part that belong together."""

    part: int
    columns: np.ndarray  # bool [F]
    weight: float
    unit: bool = True  # whether its mapped vectors are brought to length 1


@dataclass(frozen=True)
class Fit:
    """The map from the parts' vectors to one vector."""

    blocks: Sequence[Block]
    maps: Sequence[Whitening | None]  # of each block; None leaves its numbers
    last: Whitening | None = None  # of all blocks side by side; None leaves them so

    @property
    def width(self) -> int:
        if self.last:
            return int(self.last.map.shape[1])
        pairs = zip(self.blocks, self.maps, strict=True)
        return int(sum(block.columns.sum() if one is None else one.map.shape[1] for block, one in pairs))

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [n, W] of the parts' vectors, float32 [n, F] each."""
        both = concatenate_blocks(self.blocks, self.maps, parts)
        return both if self.last is None else whitening.apply_whitening(self.last, both)


def fit_blocks(parts: Parts, blocks: Sequence[Block], width: int, power: float, reduced: bool = True) -> Fit:
    """Return the map of all parts, fitted to all items; memory grows with widths, not with items.

    At most `width` directions of each block stay, divided by that power of their standard deviation, and if `reduced`
    as many of the concatenation.
    """

    def fit_block(block: Block) -> Whitening:
        return whitening.fit_pca(lambda: (x[block.part][:, block.columns] for x in parts()), width, power)

    maps = [fit_block(block) for block in blocks]
    if not reduced:
        return Fit(blocks, maps)
    return Fit(
        blocks, maps, whitening.fit_pca(lambda: (concatenate_blocks(blocks, maps, x) for x in parts()), width, 0)
    )


def split_blocks(parts: Sequence[Sequence[Columns]], image: float) -> list[Block]:
    """Return the blocks of some parts, given the columns of each; `image` is the weight of a block of images only."""
    found = []
    for number, spans in enumerate(parts):
        pictured = np.concatenate([np.repeat([*span.reads] == ["image"], span.width) for span in spans])
        for columns, weight in ((~pictured, 1.0), (pictured, image)):
            found += [Block(number, columns, weight)] if columns.any() else []
    return found


def concatenation_fit(widths: Sequence[int]) -> Fit:
    return Fit([Block(i, np.ones(width, bool), 1.0) for i, width in enumerate(widths)], [None] * len(widths))


def single_fit(own: Whitening) -> Fit:
    return Fit([Block(0, np.ones(len(own.mean), bool), 1.0, unit=False)], [own])


def concatenate_blocks(
    blocks: Sequence[Block], maps: Sequence[Whitening | None], parts: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the mapped blocks side by side, each times its weight, float32 [n, sum of their widths]."""
    found = []
    for block, own in zip(blocks, maps, strict=True):
        x = parts[block.part][:, block.columns]
        x = x if own is None else whitening.apply_whitening(own, x)
        found.append(unit_rows(x)[0] * np.float32(block.weight) if block.unit else x)
    return np.hstack(found)
