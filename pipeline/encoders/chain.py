"""Encoders of combined feature sets: the parts' encoders, and maps to one vector."""

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

MAPS = "maps.safetensors"  # mean and map of each mapped block, and `last`, PCA over all blocks
CHAIN_FILE = "chain.json"  # columns and weight of each block
MAX_BLOCKS = 64
MAX_CHAIN_BYTES = 1 << 16  # of chain.json
MAX_PART_WIDTH = 1 << 20  # columns of a part


class ChainBlock(Part):
    """Columns `first` to `last - 1` of a part."""

    part: int = Field(ge=0, lt=MAX_BLOCKS)
    first: int = Field(ge=0)
    last: int = Field(ge=1, le=MAX_PART_WIDTH)
    weight: float = Field(ge=0)
    unit: bool = True  # whether to scale its vectors to length 1


class Chain(Part):
    """Content of chain.json: how blocks of the parts' columns are scaled and mapped."""

    blocks: list[ChainBlock] = Field(min_length=1, max_length=MAX_BLOCKS)


def write(folder: Path, fit: JoinedMap) -> None:
    named_maps = [(f"block-{number}", fitted) for number, fitted in enumerate(fit.maps)]
    tensors = {}
    for name, fitted in [*named_maps, ("last", fit.last)]:
        if fitted is not None:
            tensors[f"{name}.mean"] = fitted.mean
            tensors[f"{name}.map"] = np.ascontiguousarray(fitted.map)

    blocks = [_chain_block(block) for block in fit.blocks]
    io.write_bytes(folder / MAPS, save(tensors))
    io.write_json(folder / CHAIN_FILE, Chain(blocks=blocks).model_dump())


def _chain_block(block: Block) -> ChainBlock:
    columns = np.flatnonzero(block.columns)
    first = int(columns[0])
    last = int(columns[-1]) + 1
    assert len(columns) == last - first, "the columns of a block are contiguous"
    return ChainBlock(
        part=int(block.part), first=first, last=last, weight=float(block.weight), unit=block.unit
    )


def read(folder: Path, widths: Sequence[int] | None = None) -> JoinedMap:
    """Read untrusted maps for parts of `widths`, if given.

    Raises UserError if they do not fit or are damaged.
    """
    blocks = Chain.read(folder / CHAIN_FILE, MAX_CHAIN_BYTES).blocks
    tensors = arrays.read_tensors(folder / MAPS)
    if widths is None:
        widths = _least_widths(blocks)

    try:
        return _joined_map(blocks, tensors, widths)
    except UserError as e:
        raise UserError(
            f"{folder}: no chain of these encoders: {e}; make or fetch it again"
        ) from None


def _least_widths(blocks: Sequence[ChainBlock]) -> list[int]:
    """Return the width that each part has at least."""
    widths = [0] * MAX_BLOCKS
    for block in blocks:
        widths[block.part] = max(widths[block.part], block.last)
    return widths


def _joined_map(
    blocks: Sequence[ChainBlock], tensors: arrays.Tensors, widths: Sequence[int]
) -> JoinedMap:
    maps = [
        _read_map(tensors, f"block-{number}", block.last - block.first)
        for number, block in enumerate(blocks)
    ]
    joined_width = 0
    expected = set[str]()
    joined = []
    for number, (block, fitted) in enumerate(zip(blocks, maps, strict=True)):
        if block.part >= len(widths) or not block.first < block.last <= widths[block.part]:
            raise UserError(
                f"a block of columns {block.first} to {block.last} of part {block.part}"
            )

        if fitted is None:
            joined_width += block.last - block.first
        else:
            joined_width += fitted.map.shape[1]
            expected |= {f"block-{number}.mean", f"block-{number}.map"}

        column = np.arange(widths[block.part])
        is_in_block = (block.first <= column) & (column < block.last)
        joined.append(Block(block.part, is_in_block, block.weight, block.unit))

    last = _read_map(tensors, "last", joined_width)
    if last:
        expected |= {"last.mean", "last.map"}
    if unknown := tensors.keys() - expected:
        raise UserError(f"an unknown map {one_line(min(unknown), 64)}")

    return JoinedMap(joined, maps, last)


def digests(folder: Path, parts: Sequence[str]) -> dict[str, str]:
    """Fingerprint entries of maps and of the blocks of `parts`."""
    text = "\n".join([*parts, io.sha256(folder / CHAIN_FILE)])
    blocks = hashlib.sha256(text.encode()).hexdigest()
    return {"weights": io.digest([folder / MAPS]), "blocks": blocks}


def _read_map(tensors: arrays.Tensors, name: str, rows: int) -> Whitening | None:
    if f"{name}.map" not in tensors:
        return None

    mean = arrays.require_tensor(tensors, f"{name}.mean", rows)
    return Whitening(mean, arrays.require_tensor(tensors, f"{name}.map", rows, None))


class ChainEncoder:
    """Encoder that maps the vectors of several encoders to one."""

    def __init__(self, parts: Sequence[tuple[Encoder, Sequence[str]]], fit: JoinedMap) -> None:
        self._parts = parts  # each encoder with the modalities that it reads
        self._fit = fit
        self.width = fit.width

    def prepare(
        self, images: Sequence[bytes] | None, texts: Sequence[str] | None
    ) -> tuple[int, list[Any]]:
        """Return the number of items, and a batch per part: None if no item has its modalities."""
        batches = []
        for encoder, reads in self._parts:
            part_images = images if "image" in reads else None
            part_texts = texts if "text" in reads else None
            has_content = part_images is not None or part_texts is not None
            batches.append(encoder.prepare(part_images, part_texts) if has_content else None)

        return len(images or texts or ()), batches

    def reading(self, texts: Sequence[str]) -> Reading | None:
        for encoder, reads in self._parts:
            reading = getattr(encoder, "reading", None)
            if "text" in reads and reading is not None:
                result: Reading | None = reading(texts)
                return result

        return None

    def encode(self, prepared: tuple[int, list[Any]]) -> Tensor:
        import torch

        n_items, batches = prepared
        vectors = []
        for (encoder, _), batch in zip(self._parts, batches, strict=True):
            if batch is None:
                vectors.append(np.zeros((n_items, encoder.width), np.float32))
            else:
                vectors.append(encoder.encode(batch).cpu().numpy())

        joined = np.ascontiguousarray(self._fit(vectors), np.float32)
        return torch.from_numpy(joined)
