"""Encoders of combined feature sets: the parts' encoders, and maps to one vector (B items, F and W widths)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import save

from alignrec.pipeline import io
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg.projections import Block, JoinedMap, Whitening
from alignrec.pipeline.runtime.section import Part

if TYPE_CHECKING:
    from torch import Tensor

    from alignrec.pipeline.encoders.chunks import Reading
    from alignrec.pipeline.encoders.registry import Encoder

# MAPS: mean and map of each mapped block, and `last`, PCA over all blocks; NAME: columns and weight of each block
MAPS, NAME = "maps.safetensors", "chain.json"
MAX_BLOCKS, MAX_BYTES, MAX_WIDTH = (
    64,
    1 << 16,
    1 << 20,
)  # blocks, bytes of chain.json, and columns of a part


class ChainBlock(Part):
    """Columns `first` to `last - 1` of a part."""

    part: int = Field(ge=0, lt=MAX_BLOCKS)
    first: int = Field(ge=0)
    last: int = Field(ge=1, le=MAX_WIDTH)
    weight: float = Field(ge=0)
    unit: bool = True  # whether to scale its vectors to length 1


class Chain(Part):
    """Content of chain.json: how blocks of the parts' columns are scaled and mapped."""

    blocks: list[ChainBlock] = Field(min_length=1, max_length=MAX_BLOCKS)


def write(folder: Path, fit: JoinedMap) -> None:
    tensors, blocks = dict[str, np.ndarray](), list[ChainBlock]()
    for name, one in [*((f"block-{i}", one) for i, one in enumerate(fit.maps)), ("last", fit.last)]:
        if one is not None:
            tensors |= {f"{name}.mean": one.mean, f"{name}.map": np.ascontiguousarray(one.map)}
    for block in fit.blocks:
        columns = np.flatnonzero(block.columns)
        first, last = int(columns[0]), int(columns[-1]) + 1
        assert len(columns) == last - first, "the columns of a block are contiguous"
        own = ChainBlock(
            part=int(block.part),
            first=first,
            last=last,
            weight=float(block.weight),
            unit=block.unit,
        )
        blocks.append(own)
    io.write_bytes(folder / MAPS, save(tensors))
    io.write_json(folder / NAME, Chain(blocks=blocks).model_dump())


def read(folder: Path, widths: Sequence[int] | None = None) -> JoinedMap:
    """Read untrusted maps for parts of `widths`, if given; raises UserError if they do not fit or are damaged."""
    blocks, tensors = (
        Chain.read(folder / NAME, MAX_BYTES).blocks,
        arrays.read_tensors(folder / MAPS),
    )
    if widths is None:
        widths = [
            max([0, *(b.last for b in blocks if b.part == part)]) for part in range(MAX_BLOCKS)
        ]
    try:
        maps = [
            _read_map(tensors, f"block-{i}", block.last - block.first)
            for i, block in enumerate(blocks)
        ]
        joined, read = 0, set[str]()
        for i, (block, one) in enumerate(zip(blocks, maps, strict=True)):
            if block.part >= len(widths) or not block.first < block.last <= widths[block.part]:
                raise UserError(
                    f"a block of columns {block.first} to {block.last} of part {block.part}"
                )
            joined += block.last - block.first if one is None else one.map.shape[1]
            read |= {f"block-{i}.mean", f"block-{i}.map"} if one else set()
        last = _read_map(tensors, "last", joined)
        if unknown := tensors.keys() - read - ({"last.mean", "last.map"} if last else set()):
            raise UserError(f"an unknown map {one_line(min(unknown), 64)}")
    except UserError as e:
        raise UserError(
            f"{folder}: no chain of these encoders: {e}; make or fetch it again"
        ) from None
    columns = [np.arange(widths[block.part]) for block in blocks]
    within = [
        (block.first <= own) & (own < block.last)
        for block, own in zip(blocks, columns, strict=True)
    ]
    return JoinedMap(
        [Block(b.part, own, b.weight, b.unit) for b, own in zip(blocks, within, strict=True)],
        maps,
        last,
    )


def digests(folder: Path, parts: Sequence[str]) -> dict[str, str]:
    """Return what the maps, and the blocks of `parts` in order, contribute to the fingerprint of a set."""
    blocks = hashlib.sha256("\n".join([*parts, io.sha256(folder / NAME)]).encode()).hexdigest()
    return {"weights": io.digest([folder / MAPS]), "blocks": blocks}


def _read_map(tensors: arrays.Tensors, name: str, rows: int) -> Whitening | None:
    if f"{name}.map" not in tensors:
        return None
    mean = arrays.require_tensor(tensors, f"{name}.mean", rows)
    return Whitening(mean, arrays.require_tensor(tensors, f"{name}.map", rows, None))


class ChainEncoder:
    """Encoder that maps the vectors of several encoders to one."""

    def __init__(self, parts: Sequence[tuple[Encoder, Sequence[str]]], fit: JoinedMap) -> None:
        self._parts, self._fit = parts, fit  # each encoder with the modalities that it reads
        self.width = fit.width

    def prepare(
        self, images: Sequence[bytes] | None, texts: Sequence[str] | None
    ) -> tuple[int, list[Any]]:
        prepared = []
        for encoder, reads in self._parts:
            shown, written = (
                images if "image" in reads else None,
                texts if "text" in reads else None,
            )
            prepared.append(
                None if shown is None and written is None else encoder.prepare(shown, written)
            )
        return len(images or texts or ()), prepared

    def reading(self, texts: Sequence[str]) -> Reading | None:
        readers = (
            getattr(encoder, "reading", None) for encoder, reads in self._parts if "text" in reads
        )
        return next((reading(texts) for reading in readers if reading is not None), None)

    def encode(self, prepared: tuple[int, list[Any]]) -> Tensor:
        import torch

        n, batches = (
            prepared  # number of items, and a batch per part: None if no item has its modalities
        )
        vectors = [np.zeros((n, encoder.width), np.float32) for encoder, _ in self._parts]
        for number, ((encoder, _), own) in enumerate(zip(self._parts, batches, strict=True)):
            if own is not None:
                vectors[number] = encoder.encode(own).cpu().numpy()
        return torch.from_numpy(np.ascontiguousarray(self._fit(vectors), np.float32))
