"""Pictures as networks read them: decoded, made square, scaled to numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; the stage `images` has judged sizes
DRAFT = 4
"""sides that a picture keeps when it is decoded smaller: bounds memory, and changes none that has less than 8"""
HALF = (0.5, 0.5, 0.5)
"""mean and sd of the normalisation to [-1, 1], as BEiT3's"""


def square(picture: bytes, side: int) -> np.ndarray:
    """Decode one stored picture and stretch it to a square, bicubic: uint8 [side, side, 3].

    Raises:
        OSError: it cannot be decoded; the images stage stores none such.
    """
    return np.asarray(decoded(picture, side).resize((side, side), Image.Resampling.BICUBIC))


def decoded(picture: bytes, side: int) -> Image.Image:
    """Decode one stored picture that will be shrunk to about `side`: RGB, with its own proportions.

    Raises:
        OSError: it cannot be decoded; the images stage stores none such.
    """
    with Image.open(io.BytesIO(picture)) as opened:
        opened.draft(
            "RGB", (DRAFT * side, DRAFT * side)
        )  # a JPEG many times too large is decoded at a part of its size
        return opened.convert("RGB")


def squares(pictures: Sequence[bytes], side: int) -> np.ndarray:
    """Return uint8 [B, side, side, 3]."""
    return np.stack([square(p, side) for p in pictures])


def normalised(pixels: np.ndarray | Tensor, mean: Sequence[float] = HALF, sd: Sequence[float] = HALF) -> Tensor:
    """Scale uint8 [B, S, S, 3] to `(x / 255 - mean) / sd`, float32 [B, 3, S, S], where the pixels are."""
    x = torch.as_tensor(np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels)
    x = x.permute(0, 3, 1, 2).float().div(255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(sd).view(3, 1, 1)
