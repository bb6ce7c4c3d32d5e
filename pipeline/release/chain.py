"""Feature sets that linear algebra makes of others, as encoders of a release: the encoders of the parts, and the maps.

maps.safetensors has mean and map of every block, and of all blocks side by side where PCA brings them to one width
(`last`); chain.json has the columns and the weight of each block.

Letters: B items, F and W widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field
from safetensors.numpy import save

from pipeline import io
from pipeline.errors import UserError, one_line
from pipeline.ops import arrays
from pipeline.ops.joining import Block, Fit
from pipeline.ops.whitening import Whitening
from pipeline.release.manifest import Part

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.encode.base import Encoder

MAPS, NAME = "maps.safetensors", "chain.json"
MOST, LARGEST = 64, 1 << 16
"""blocks, and bytes of chain.json"""
WIDEST = 1 << 20


class ChainBlock(Part):
    """Columns first .. last - 1 of a part."""

    part: int = Field(ge=0, lt=MOST)
    first: int = Field(ge=0)
    last: int = Field(ge=1, le=WIDEST)
    weight: float = Field(ge=0)


class Chain(Part):
    """chain.json."""

    blocks: list[ChainBlock] = Field(min_length=1, max_length=MOST)


def write(folder: Path, fit: Fit) -> None:
    maps = {f"block-{i}": one for i, one in enumerate(fit.maps)} | ({"last": fit.last} if fit.last else {})
    tensors, blocks = dict[str, np.ndarray](), list[ChainBlock]()
    for name, one in maps.items():
        tensors |= {f"{name}.mean": one.mean, f"{name}.map": np.ascontiguousarray(one.map)}
    for block in fit.blocks:
        columns = np.flatnonzero(block.columns)
        first, last = int(columns[0]), int(columns[-1]) + 1
        assert len(columns) == last - first, "the columns of a block are contiguous"
        blocks.append(ChainBlock(part=int(block.part), first=first, last=last, weight=float(block.weight)))
    io.write_bytes(folder / MAPS, save(tensors))
    io.write_json(folder / NAME, Chain(blocks=blocks).model_dump())


def read(folder: Path, widths: Sequence[int] | None = None) -> Fit:
    """Read untrusted maps for parts of some widths, by default of those that the blocks need.

    UserError if they do not fit them or are damaged.
    """
    blocks, tensors = Chain.read(folder / NAME, LARGEST).blocks, arrays.read(folder / MAPS)
    if widths is None:
        widths = [max([0, *(b.last for b in blocks if b.part == part)]) for part in range(MOST)]
    try:
        maps = [_whitening(tensors, f"block-{i}", block.last - block.first) for i, block in enumerate(blocks)]
        for block in blocks:
            if block.part >= len(widths) or not block.first < block.last <= widths[block.part]:
                raise UserError(f"a block of columns {block.first} to {block.last} of part {block.part}")
        joined = sum(one.map.shape[1] for one in maps)
        last = _whitening(tensors, "last", joined) if "last.map" in tensors else None
        names = [f"block-{i}" for i in range(len(blocks))] + ["last"] * (last is not None)
        if unknown := tensors.keys() - {f"{name}.{of}" for name in names for of in ("mean", "map")}:
            raise UserError(f"an unknown map {one_line(min(unknown), 64)}")
    except UserError as e:
        raise UserError(f"{folder}: no chain of this release's encoders: {e}; fetch the release again") from None
    columns = [np.arange(widths[block.part]) for block in blocks]
    within = [(block.first <= own) & (own < block.last) for block, own in zip(blocks, columns, strict=True)]
    return Fit([Block(b.part, own, b.weight) for b, own in zip(blocks, within, strict=True)], maps, last)


def _whitening(tensors: arrays.Tensors, name: str, rows: int) -> Whitening:
    return Whitening(arrays.tensor(tensors, f"{name}.mean", rows), arrays.tensor(tensors, f"{name}.map", rows, None))


class Prepared(NamedTuple):
    """A batch of B items."""

    items: int
    parts: list[Any]
    """what each part prepared; None where it reads nothing of these items"""


class ChainEncoder:
    """The encoders of the parts, and the maps from their vectors to one; see encode.base.Encoder."""

    def __init__(self, parts: Sequence[tuple[Encoder, Sequence[str]]], fit: Fit) -> None:
        """Take encoders and the modalities that each reads, in the order of the parts."""
        self._parts, self._fit = parts, fit
        self.width = fit.width

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        prepared = []
        for encoder, reads in self._parts:
            shown, written = images if "image" in reads else None, texts if "text" in reads else None
            prepared.append(None if shown is None and written is None else encoder.prepare(shown, written))
        return Prepared(len(images or texts or ()), prepared)

    def encode(self, prepared: Prepared) -> Tensor:
        import torch

        vectors = [np.zeros((prepared.items, encoder.width), np.float32) for encoder, _ in self._parts]
        for number, ((encoder, _), own) in enumerate(zip(self._parts, prepared.parts, strict=True)):
            if own is not None:
                vectors[number] = encoder.encode(own).cpu().numpy()
        return torch.from_numpy(np.ascontiguousarray(self._fit(vectors), np.float32))
