"""Classical image descriptors: colours, silhouette and gradients.

B images, S side in pixels, F width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.encoders.settings import NoSettings
from alignrec.pipeline.images.decode import decode_squares
from alignrec.pipeline.linalg.projections import unit_rows

DESCRIPTOR_SIDE_PIXELS = 96
LEVELS = 4  # of colours, per channel
SILHOUETTE_CELLS = 24  # per side
GRADIENT_CELLS = 6  # per side
DIRECTIONS = 8  # of gradients
# minimum difference of a foreground pixel from the background, in any channel (0 to 1)
MIN_CONTRAST = 0.1


class Descriptors:
    """Concatenated descriptors, each of length 1."""

    width = LEVELS**3 + SILHOUETTE_CELLS**2 + GRADIENT_CELLS**2 * DIRECTIONS

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        if images is None:
            raise ValueError("descriptors are of images")
        return decode_squares(images, DESCRIPTOR_SIDE_PIXELS)

    def encode(self, prepared: np.ndarray) -> Tensor:
        return torch.from_numpy(describe_images(prepared))


def describe_images(pixels: np.ndarray) -> np.ndarray:
    """Return the descriptors, float32 [B, F], of pixels, uint8 [B, S, S, 3]."""
    n_images = len(pixels)
    x = pixels.astype(np.float32) / 255
    # square roots make dot products Bhattacharyya coefficients
    blocks = [
        np.sqrt(_count_colours(pixels)),
        _cell_means(_find_foreground(x), SILHOUETTE_CELLS),
        np.sqrt(_measure_gradients(x)),
    ]
    return np.hstack([unit_rows(block.reshape(n_images, -1))[0] for block in blocks])


def _count_colours(pixels: np.ndarray) -> np.ndarray:
    """Return colour histograms, float64 [B, LEVELS^3]."""
    n_images = len(pixels)
    levels = pixels.astype(np.int64) * LEVELS // 256
    colours = levels @ [LEVELS**2, LEVELS, 1]  # [B, S, S]
    colours += LEVELS**3 * np.arange(n_images)[:, None, None]
    counts = np.bincount(colours.ravel(), minlength=LEVELS**3 * n_images)
    return counts.reshape(n_images, -1).astype(np.float64)


def _find_foreground(x: np.ndarray) -> np.ndarray:
    """Return which pixels differ from the background, the median of the border: bool [B, S, S]."""
    border = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1)  # [B, 4 S, 3]
    background = np.median(border, axis=1)[:, None, None]
    foreground: np.ndarray = np.abs(x - background).max(axis=3) > MIN_CONTRAST
    return foreground


def _measure_gradients(x: np.ndarray) -> np.ndarray:
    """Return mean gradient lengths by cell and direction, [B, cells, cells, DIRECTIONS]."""
    down, across = np.gradient(x.mean(axis=3), axis=(1, 2))
    half_turns = np.arctan2(down, across) % np.pi / np.pi
    direction = (half_turns * DIRECTIONS).astype(int) % DIRECTIONS
    length = np.hypot(down, across)
    means = [_cell_means(length * (direction == d), GRADIENT_CELLS) for d in range(DIRECTIONS)]
    return np.stack(means, axis=3)


def _cell_means(x: np.ndarray, cells: int) -> np.ndarray:
    """Average over square cells: [B, S, S] -> float64 [B, cells, cells]."""
    side = x.shape[1] // cells
    grid = x.reshape(len(x), cells, side, cells, side)
    means: np.ndarray = grid.mean(axis=(2, 4), dtype=np.float64)
    return means


DESCRIPTORS = Spec(lambda folder, params: Descriptors(), NoSettings, reads=("image",))
