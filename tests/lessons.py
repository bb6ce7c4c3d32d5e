"""Images of four colours under stripes that say nothing, and a teacher that sees the colour alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import schemas
from pipeline import io as files
from pipeline.layout import Layout

SIDE, CELLS = 48, 12
COLOURS = np.array([(160, 100, 100), (100, 160, 100), (100, 100, 160), (150, 150, 80)])


class ColourTeacher:
    """Sees the mean colour of each cell; counts the images that it is shown."""

    side = SIDE

    def __init__(self) -> None:
        self.shown = 0

    def feature_map(self, pixels: Tensor, grid: int) -> Tensor:
        """uint8 [B, S, S, 3] -> float32 [B, 4, CELLS, CELLS]."""
        self.shown += len(pixels)
        colour = F.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2).float(), CELLS)
        return F.pad(colour - 115, (0, 0, 0, 0, 0, 1), value=20.0)  # a constant, as most of any feature is


def striped(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [n, 48, 48, 3] and which colour each has, int64 [n]."""
    rng = np.random.default_rng(seed)
    colour = np.arange(n) % len(COLOURS)
    place = np.arange(SIDE)
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for image, base in zip(images, COLOURS[colour], strict=True):
        across, width = rng.integers(2), rng.choice([2, 4])
        stripes = ((place + rng.integers(8)) // width % 2 * 2 - 1) * 75
        image[:] = np.clip(base + (stripes[:, None, None] if across else stripes[None, :, None]), 0, 255)
    return images, colour


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")  # exact; the pipeline's own are JPEG
    return out.getvalue()


def store(root: Path, images: list[bytes | None], shard: int) -> Layout:
    """Write images as the stage `images` does, `shard` to a file; None: the item has none."""
    layout, n = Layout(root, "toy"), len(images)
    size = [SIDE if image else 0 for image in images]
    table = pa.table(
        [
            pa.array(range(n), pa.int32()),
            pa.array([f"A{i}" for i in range(n)]),
            pa.array(["ok" if image else "missing" for image in images]),
            *[pa.array([""] * n)] * 2,
            pa.array(images, pa.binary()),
            *[pa.array(size, pa.int32())] * 2,
            pa.array([""] * n),
            pa.array([1 if image else None for image in images], pa.uint64()),
        ],
        names=schemas.IMAGES.names,
    )
    for number, first in enumerate(range(0, n, shard)):
        path = files.shard(layout.images, "images", number)
        files.write_table(table.slice(first, shard), path, schemas.IMAGES)
    return layout


def agreement(tokens: np.ndarray, group: np.ndarray) -> float:
    """Return how much oftener patches at one place have one token in images of a group than in others."""
    same = group[:, None] == group[None]
    np.fill_diagonal(same, False)
    equal = (tokens[:, None] == tokens[None]).mean(axis=2)
    other = group[:, None] != group[None]
    return float(equal[same].mean() - equal[other].mean())
