"""Pictures as the released BEiT3 and VQ-KD expect them; `pipeline.tokens` does the same for texts.

As in their own evaluation: the whole picture squeezed to a square by Pillow's bicubic filter, then [0, 1] to [-1, 1].
The two steps are apart because the first runs in worker processes on bytes and the second on the device on a batch.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import UserError


def decode(data: bytes, side: int) -> np.ndarray:
    """Return an encoded picture as uint8 [side, side, 3], RGB.

    Args:
        data: bytes of a picture that the images stage accepted.
        side: of the square, pixels; larger and smaller pictures are resized, their shape is not kept.

    Raises:
        UserError: no picture, so the table that it came from is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            square = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError) as e:
        raise UserError(f"a stored picture cannot be decoded ({e}); run `alignrec images` again") from None
    return np.array(square)  # a copy of its own, writable


def normalise(pixels: Tensor) -> Tensor:
    """Return pictures as the networks take them: uint8 [B, S, S, 3] -> float32 [B, 3, S, S] in [-1, 1]."""
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return scaled.div_(255).sub_(0.5).div_(0.5)
