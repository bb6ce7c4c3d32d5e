"""Augmentation: the views of its images that a training sees, with the visual tokens that belong to a view.

Visual tokens are of whole images. Each patch of a view takes the token of that patch of the whole image in which its
centre lies, so that MIM predicts what stands at the place, whatever the tokens were made from; a crop shows its patches
at up to twice their size, not exactly as the tokens' maker saw them. Colours keep the tokens of the original: MIM looks
through a change of light.

Letters: B batch, S image side, g patches a side, P = g g patches, n rows or columns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

CROP, FLIP, COLOUR = "crop", "flip", "colour"
AREA = (0.5, 1.0)
"""of a crop, as a share of the image; smaller ones often miss the product that the text names"""
RATIO = 4 / 3
"""of a crop's sides, at most, as in "Going deeper with convolutions" (arXiv 1409.4842)"""
JITTER = 0.4
"""brightness, contrast and saturation change by up to this share, as in BEiT"""
LUMA = (0.299, 0.587, 0.114)
"""shares of red, green and blue in grey"""


class Views(NamedTuple):
    """What is seen of each of B images."""

    corner: np.ndarray
    """float [B, 2], top and left of the crop, as shares of the side"""
    extent: np.ndarray
    """float [B, 2], height and width of the crop, as shares of the side"""
    mirrored: np.ndarray
    """bool [B]"""
    colour: np.ndarray
    """float32 [B, 3], factors of brightness, contrast and saturation"""


def draw(names: Collection[str], rngs: Sequence[Generator]) -> Views:
    """Draw a view of each of B images.

    Args:
        names: of CROP, FLIP, COLOUR; what is not among them is left as it is.
        rngs: one an image, which draws as often whatever the names.
    """
    uniform = np.array([rng.random(8) for rng in rngs]).reshape(-1, 8)  # of no images too
    extent = np.ones((len(rngs), 2))
    if CROP in names:
        area = AREA[0] + uniform[:, 0] * (AREA[1] - AREA[0])
        ratio = RATIO ** (2 * uniform[:, 1] - 1)
        extent = np.minimum(1, np.sqrt(np.stack([area / ratio, area * ratio], axis=1)))
    mirrored = (uniform[:, 4] < 0.5) & (FLIP in names)
    colour = 1 + JITTER * (2 * uniform[:, 5:] - 1) * (COLOUR in names)
    return Views(uniform[:, 2:4] * (1 - extent), extent, mirrored, colour.astype(np.float32))


def images(pixels: np.ndarray, views: Views) -> Tensor:
    """Return the views of uint8 [B, S, S, 3]: float32 [B, S, S, 3] in [0, 255], crops enlarged to S, bilinear."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # [B, 3, S, S]
    rows, columns = (torch.from_numpy(2 * share - 1).float() for share in _centres(views, pixels.shape[1]))
    grid = torch.stack(
        [columns[:, None, :].expand(-1, rows.shape[1], -1), rows[:, :, None].expand(-1, -1, columns.shape[1])], dim=3
    )  # [B, S, S, 2], x before y
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _coloured(x, torch.from_numpy(views.colour)).permute(0, 2, 3, 1)


def codes(whole: np.ndarray, views: Views) -> np.ndarray:
    """Return the visual tokens of the views of images with tokens `whole`, int [B, P]."""
    grid = whole.reshape(len(whole), round(whole.shape[1] ** 0.5), -1)  # [B, g, g]
    rows, columns = ((share * grid.shape[1]).astype(np.int64) for share in _centres(views, grid.shape[1]))
    batch = np.arange(len(whole))[:, None, None]
    return grid[batch, rows[:, :, None], columns[:, None, :]].reshape(whole.shape)


def _centres(views: Views, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the centres of a view's n rows and of its n columns, as shares of the whole image's side.

    Both are float [B, n].
    """
    along = np.tile((np.arange(n) + 0.5) / n, (len(views.corner), 1))
    across = np.where(views.mirrored[:, None], 1 - along, along)
    top, left = np.hsplit(views.corner, 2)
    height, width = np.hsplit(views.extent, 2)
    return top + height * along, left + width * across


def _coloured(x: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of [B, 3, S, S] in [0, 255], in this order."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # [B, 1, 1, 1] each
    x = (x * brightness).clamp(0, 255)
    x = torch.lerp(_grey(x).mean(dim=(2, 3), keepdim=True), x, contrast).clamp(0, 255)
    return torch.lerp(_grey(x), x, saturation).clamp(0, 255)


def _grey(x: Tensor) -> Tensor:
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)  # [B, 1, S, S]
