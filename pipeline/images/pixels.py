"""Images as networks read them: decoded, resized to squares, normalised."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; the stage `images` has checked sizes
DRAFT = 4
"""target sides that a JPEG decoded at reduced size keeps: bounds memory, changes no image of less than 8 sides"""
HALF = (0.5, 0.5, 0.5)
"""mean and sd of the normalisation to [-1, 1], as BEiT3's"""


def square(image: bytes, side: int) -> np.ndarray:
    """Decode one stored image and stretch it to a square, bicubic: uint8 [side, side, 3].

    Raises:
        OSError: it cannot be decoded; the images stage stores none such.
    """
    return np.asarray(decoded(image, side).resize((side, side), Image.Resampling.BICUBIC))


def decoded(image: bytes, side: int) -> Image.Image:
    """Decode one stored image that will be shrunk to about `side`: RGB, with its own proportions.

    Raises:
        OSError: it cannot be decoded; the images stage stores none such.
    """
    with Image.open(io.BytesIO(image)) as opened:
        opened.draft(
            "RGB", (DRAFT * side, DRAFT * side)
        )  # a JPEG many times too large is decoded at a part of its size
        return opened.convert("RGB")


def squares(images: Sequence[bytes], side: int) -> np.ndarray:
    """Return uint8 [B, side, side, 3]."""
    return np.stack([square(p, side) for p in images])


def normalised(pixels: np.ndarray | Tensor, mean: Sequence[float] = HALF, sd: Sequence[float] = HALF) -> Tensor:
    """Scale uint8 [B, S, S, 3] to `(x / 255 - mean) / sd`, float32 [B, 3, S, S], on the pixels' device."""
    x = torch.as_tensor(np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels)
    x = x.permute(0, 3, 1, 2).float().div(255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(sd).view(3, 1, 1)
