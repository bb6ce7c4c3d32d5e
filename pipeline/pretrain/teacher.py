"""The teacher of visual tokens: an encoder of images whose feature map says what each patch shows.

Letters: B batch, S the teacher's image side, W its width, g patches a side, P = g g patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.images import pixels
from pipeline.ops.rows import unit_rows

BATCH = 64  # images a forward pass; fixed, since another number is another rounding
BLOCK = 4096  # images whose mean is taken at a time; bounds memory

Progress = Callable[..., tqdm]
"""makes a bar, given tqdm's `total`, `unit` and `initial`"""


class Teacher(Protocol):
    """An encoder that gives a feature map."""

    @property
    def side(self) -> int:
        """S; images are stretched to squares, so that the map's cells lie as the patches of BEiT3 do."""
        ...

    def feature_map(self, pixels: Tensor, grid: int) -> Tensor:
        """Return the features of an image's cells, finite.

        Args:
            pixels: uint8 [B, S, S, 3].
            grid: cells a side that are wanted; a map of more is pooled, one of fewer is repeated.

        Returns:
            float32 [B, W, cells, cells].
        """
        ...


Lazy = Callable[[], Teacher]
"""loads the teacher, which a run that goes on may not need"""


@dataclass(frozen=True)
class FeatureMaps:
    """The teacher's features of all patches of all images, on disk."""

    parts: list[np.ndarray]
    """memory maps, float16 [n, P, W] each, of length 1; one for each file of the images stage"""

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Images, P, W."""
        _, patches, width = self.parts[0].shape
        return int(self._ends[-1]), patches, width

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of all patches, float32 [W]: what they share, which tells none from another."""
        blocks = (part[first : first + BLOCK] for part in self.parts for first in range(0, len(part), BLOCK))
        total = sum(block.sum(axis=(0, 1), dtype=np.float64) for block in blocks)
        return np.asarray(total / (self.shape[0] * self.shape[1]), np.float32)

    def rows(self, images: np.ndarray) -> np.ndarray:
        """Return the centred features of images, of length 1: int64 [B] -> float32 [B, P, W]."""
        out = np.empty((len(images), *self.shape[1:]), np.float32)
        part = np.searchsorted(self._ends, images, side="right")
        for number in np.unique(part):
            here = part == number
            first = self._ends[number] - len(self.parts[number])
            out[here] = self.parts[number][images[here] - first]
        flat = (out - self.mean).reshape(-1, self.shape[2])
        return unit_rows(flat)[0].reshape(out.shape)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self.parts])


def feature_maps(load: Lazy, images: Path, grid: int, folder: Path, progress: Progress) -> FeatureMaps:
    """Run the teacher over every stored image once; a killed run goes on from the last whole part.

    Args:
        load: called if a part is to be made.
        images: folder of the images stage.
        grid: g.
        folder: of the parts, which are written if they do not exist.
        progress: shows images.
    """
    shards = io.shards(images, "images")
    counts = [_count(shard) for shard in shards]
    paths = [folder / f"teacher-{number:05d}.npy" for number in range(len(shards))]
    ready = sum(n for n, path in zip(counts, paths, strict=True) if path.is_file())
    teacher = None
    with progress(total=sum(counts), unit="image", initial=ready) as bar:
        for shard, n, path in zip(shards, counts, paths, strict=True):
            if n and not path.is_file():
                teacher = teacher or load()
                _write(teacher, shard, n, grid, path, bar)
    return FeatureMaps([np.load(p, mmap_mode="r", allow_pickle=False) for n, p in zip(counts, paths, strict=True) if n])


def _count(shard: Path) -> int:
    status = io.read_table(shard, schemas.IMAGES, ["status"])["status"]
    return int((status.to_numpy(zero_copy_only=False) == "ok").sum())


def _write(teacher: Teacher, shard: Path, n: int, grid: int, path: Path, bar: tqdm) -> None:
    """Write the maps of one shard's images."""
    images = io.read_table(shard, schemas.IMAGES, ["image"])["image"].drop_null()
    with io.atomic(path) as temporary:
        array = None
        for first in range(0, n, BATCH):
            vectors = _vectors(teacher, images.slice(first, BATCH), grid)
            if array is None:
                array = open_memmap(temporary, "w+", np.float16, (n, *vectors.shape[1:]))
            array[first : first + BATCH] = vectors
            bar.update(len(vectors))
        assert array is not None
        array.flush()


def _vectors(teacher: Teacher, images: pa.ChunkedArray, grid: int) -> np.ndarray:
    """Return the features of images, of length 1: float32 [B, P, W]."""
    squares = torch.from_numpy(pixels.squares(images.to_pylist(), teacher.side))
    cells = F.adaptive_avg_pool2d(teacher.feature_map(squares, grid), grid)  # [B, W, ., .] -> [B, W, g, g]
    vectors = F.normalize(cells.flatten(2).transpose(1, 2), dim=2).cpu().numpy()  # [B, P, W]
    if not np.isfinite(vectors).all():
        raise UserError("pretrain.teacher: a feature of its map is not finite; give it precision: float32")
    return vectors
