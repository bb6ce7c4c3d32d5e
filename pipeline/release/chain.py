"""Feature sets that linear algebra makes of others, as encoders of a release: the encoders of the parts, and the maps.

maps.safetensors has mean and map of every block, and of all blocks side by side where PCA brings them to one width
(`last`); chain.json has the columns and the weight of each block.

Letters: B items, F and W widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pipeline import io
from pipeline.errors import UserError, one_line
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
DAMAGED = "fetch the release again"


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
    arrays = dict[str, np.ndarray]()
    maps = {f"block-{i}": one for i, one in enumerate(fit.maps)} | ({"last": fit.last} if fit.last else {})
    for name, one in maps.items():
        arrays |= {f"{name}.mean": one.mean, f"{name}.map": np.ascontiguousarray(one.map)}
    io.write_bytes(folder / MAPS, save(arrays))
    blocks = [_described(block) for block in fit.blocks]
    io.write_json(folder / NAME, Chain(blocks=blocks).model_dump())


def _described(block: Block) -> ChainBlock:
    columns = np.flatnonzero(block.columns)
    first, last = int(columns[0]), int(columns[-1]) + 1
    if len(columns) != last - first:
        raise ValueError("the columns of a block are not contiguous")
    return ChainBlock(part=int(block.part), first=first, last=last, weight=float(block.weight))


def read(folder: Path, widths: Sequence[int]) -> Fit:
    """Read untrusted maps for parts of some widths; UserError if they do not fit them or are damaged."""
    try:
        chain, arrays = _described_by(folder), load_file(folder / MAPS)
        names = [*(f"block-{i}" for i in range(len(chain.blocks))), "last"]
        maps = [_whitening(arrays, name) for name in names[:-1]]
        for block, own in zip(chain.blocks, maps, strict=True):
            if block.part >= len(widths) or not block.first < block.last <= widths[block.part]:
                raise ValueError(f"a block of columns {block.first} to {block.last} of part {block.part}")
            if len(own.mean) != block.last - block.first:
                raise ValueError("a map of another width than its block")
        joined = sum(one.map.shape[1] for one in maps)
        last = _whitening(arrays, "last", joined) if "last.map" in arrays else None
        if unknown := arrays.keys() - {f"{name}.{of}" for name in names for of in ("mean", "map")}:
            raise ValueError(f"an unknown map {min(unknown)}")
        return Fit([_block(block, widths) for block in chain.blocks], maps, last)
    except (ValidationError, SafetensorError, OSError, KeyError, ValueError) as e:
        raise UserError(f"{folder}: no chain of this release's encoders: {one_line(e, 100)}; {DAMAGED}") from None


def check(folder: Path) -> int:
    """Check a chain by itself and return its width, whatever those of its parts; UserError as `read`."""
    try:
        blocks = _described_by(folder).blocks
    except ValidationError as e:
        raise UserError(f"{folder / NAME}: {one_line(e, 100)}; {DAMAGED}") from None
    widths = [0] * (1 + max(block.part for block in blocks))
    for block in blocks:
        widths[block.part] = max(widths[block.part], block.last)
    return read(folder, widths).width


def _described_by(folder: Path) -> Chain:
    return Chain.model_validate(io.read_json(folder / NAME, LARGEST))


def _whitening(arrays: Mapping[str, np.ndarray], name: str, rows: int | None = None) -> Whitening:
    mean, own = arrays[f"{name}.mean"], arrays[f"{name}.map"]
    expected = len(mean) if rows is None else rows
    sound = mean.ndim == 1 and own.ndim == 2 and len(own) == len(mean) == expected
    if not sound or mean.dtype != np.float32 or own.dtype != np.float32:
        raise ValueError(f"{name}: mean {mean.shape} and map {own.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(own).all()):
        raise ValueError(f"{name} is not finite")
    return Whitening(mean, own)


def _block(block: ChainBlock, widths: Sequence[int]) -> Block:
    columns = np.zeros(widths[block.part], bool)
    columns[block.first : block.last] = True
    return Block(block.part, columns, block.weight)


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
        self.width, self.flops = fit.width, 0.0

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
        self.flops = sum(encoder.flops for encoder, _ in self._parts)
        return torch.from_numpy(np.ascontiguousarray(self._fit(vectors), np.float32))
