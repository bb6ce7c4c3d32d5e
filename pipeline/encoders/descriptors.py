"""Classical image descriptors: colours, silhouette and gradients (B images, S side in pixels, F width)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.registry import NoSettings, Spec
from alignrec.pipeline.images.decode import decode_squares
from alignrec.pipeline.linalg.projections import unit_rows

SIDE = 96
# colour levels per channel; cells per side of the silhouette and of the gradients; directions of gradients
LEVELS, CELLS, COARSE, DIRECTIONS = 4, 24, 6, 8
APART = 0.1  # minimum difference of a foreground pixel from the background, in any channel (0 to 1)


class Descriptors:
    """Concatenated descriptors, each of length 1."""

    width = LEVELS**3 + CELLS**2 + COARSE**2 * DIRECTIONS

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        if images is None:
            raise ValueError("descriptors are of images")
        return decode_squares(images, SIDE)

    def encode(self, prepared: np.ndarray) -> Tensor:
        return torch.from_numpy(describe_images(prepared))


def describe_images(pixels: np.ndarray) -> np.ndarray:
    """Return the descriptors, float32 [B, F], of pixels, uint8 [B, S, S, 3]."""
    x, n = pixels.astype(np.float32) / 255, len(pixels)
    # colour histograms, [B, LEVELS^3]
    bins = (pixels.astype(np.int64) * LEVELS // 256) @ [LEVELS**2, LEVELS, 1]  # [B, S, S]
    bins += LEVELS**3 * np.arange(n)[:, None, None]
    colours = np.bincount(bins.ravel(), minlength=LEVELS**3 * n).reshape(n, -1).astype(np.float64)
    # pixels that differ from the background, the median colour of the border
    border = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1)  # [B, 4 S, 3]
    foreground = np.abs(x - np.median(border, axis=1)[:, None, None]).max(axis=3) > APART
    # mean gradient lengths by cell and direction, [B, COARSE, COARSE, DIRECTIONS]
    down, across = np.gradient(x.mean(axis=3), axis=(1, 2))
    direction = (np.arctan2(down, across) % np.pi / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    length = np.hypot(down, across)
    gradients = np.stack(
        [_cell_means(length * (direction == d), COARSE) for d in range(DIRECTIONS)], axis=3
    )
    # square roots make dot products Bhattacharyya coefficients
    blocks = np.sqrt(colours), _cell_means(foreground, CELLS), np.sqrt(gradients)
    return np.hstack([unit_rows(block.reshape(n, -1))[0] for block in blocks])


def _cell_means(x: np.ndarray, cells: int) -> np.ndarray:
    """Average over square cells: [B, S, S] -> float64 [B, cells, cells]."""
    side = x.shape[1] // cells
    return x.reshape(len(x), cells, side, cells, side).mean(axis=(2, 4), dtype=np.float64)


DESCRIPTORS = Spec(lambda folder, params: Descriptors(), NoSettings, reads=("image",))
