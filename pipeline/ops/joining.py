"""Combine vectors of several encoders: whitened blocks, scaled and concatenated. n items, F and W widths."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from alignrec.pipeline.ops import whitening
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.ops.whitening import Whitening

# defaults: width, power, and weight of image-only vectors; others weigh 1
WIDTH, POWER, IMAGE = 128, 0.5, 0.6
# yields batches of items, as one float32 [n, F] per part; called once per pass
Parts = Callable[[], Iterable[Sequence[np.ndarray]]]


class Columns(Protocol):
    """Consecutive columns of a part that encode the same modalities."""

    @property
    def reads(self) -> Sequence[str]: ...

    @property
    def width(self) -> int: ...


class Block(NamedTuple):
    """Columns of one part that are whitened together."""

    part: int
    columns: np.ndarray  # bool [F]
    weight: float
    unit: bool = True  # normalise mapped vectors to length 1


@dataclass(frozen=True)
class Fit:
    """Fitted map from the parts' vectors to one vector."""

    blocks: Sequence[Block]
    maps: Sequence[Whitening | None]  # one per block; None is the identity
    last: Whitening | None = None  # applied to the concatenation; None is the identity

    @property
    def width(self) -> int:
        if self.last:
            return int(self.last.map.shape[1])
        pairs = zip(self.blocks, self.maps, strict=True)
        return int(sum(block.columns.sum() if one is None else one.map.shape[1] for block, one in pairs))

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Map parts, float32 [n, F] each, to float32 [n, W]."""
        both = concatenate_blocks(self.blocks, self.maps, parts)
        return both if self.last is None else whitening.apply_whitening(self.last, both)


def fit_blocks(parts: Parts, blocks: Sequence[Block], width: int, power: float, reduced: bool = True) -> Fit:
    """Fit PCA to `width` directions at most per block, scaled by sd^-power; if `reduced`, also to the concatenation."""

    def fit_block(block: Block) -> Whitening:
        return whitening.fit_pca(lambda: (x[block.part][:, block.columns] for x in parts()), width, power)

    maps = [fit_block(block) for block in blocks]
    if not reduced:
        return Fit(blocks, maps)
    return Fit(
        blocks, maps, whitening.fit_pca(lambda: (concatenate_blocks(blocks, maps, x) for x in parts()), width, 0)
    )


def split_blocks(parts: Sequence[Sequence[Columns]], image: float) -> list[Block]:
    """Split parts into image-only blocks, of weight `image`, and others, of weight 1."""
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
    found = []  # float32 [n, width] each
    for block, own in zip(blocks, maps, strict=True):
        x = parts[block.part][:, block.columns]
        x = x if own is None else whitening.apply_whitening(own, x)
        found.append(unit_rows(x)[0] * np.float32(block.weight) if block.unit else x)
    return np.hstack(found)
