"""Stored images as network input: decoded, resized to squares, normalised."""

import io as memory
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from torch import Tensor

from alignrec import schemas
from alignrec.pipeline import io

warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; the images stage has checked sizes
# JPEGs are decoded at no less than this many target sides: bounds memory, leaves images below 8 sides unchanged
DRAFT = 4
HALF = (0.5, 0.5, 0.5)  # mean and sd, scales to [-1, 1] as in BEiT3


def decode_square(image: bytes, side: int) -> np.ndarray:
    """Decode one stored image and resize it to a square, bicubic: uint8 [side, side, 3]."""
    return np.asarray(decode_rgb(image, side).resize((side, side), Image.Resampling.BICUBIC))


def decode_rgb(image: bytes, side: int) -> Image.Image:
    """Decode a stored image at `side` or more pixels, keeping its aspect ratio; raise OSError if it is damaged."""
    with Image.open(memory.BytesIO(image)) as opened:
        opened.draft("RGB", (DRAFT * side, DRAFT * side))  # scaled decoding of large JPEGs
        return opened.convert("RGB")


def decode_squares(images: Sequence[bytes], side: int) -> np.ndarray:
    return np.stack([decode_square(p, side) for p in images])


def normalise_pixels(pixels: np.ndarray | Tensor, mean: Sequence[float] = HALF, sd: Sequence[float] = HALF) -> Tensor:
    """Return (x / 255 - mean) / sd of uint8 [B, S, S, 3]: float32 [B, 3, S, S], on the pixels' device."""
    x = torch.as_tensor(np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels)
    x = x.permute(0, 3, 1, 2).float().div(255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(sd).view(3, 1, 1)


def decode_all(images: Path, side: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode all stored images into `cache`; return rows int64 [I], -1 for none, and mapped uint8 [n, S, S, 3]."""
    paths = io.shards(images, "images")
    status = [io.read_table(p, schemas.IMAGES, ["status"])["status"].to_numpy(zero_copy_only=False) for p in paths]
    has = np.concatenate(status) == "ok"
    row = np.where(has, np.cumsum(has) - 1, -1)
    if not cache.is_file():
        shape = (int(has.sum()), side, side, 3)
        if not shape[0]:
            return row, np.empty(shape, np.uint8)
        with io.atomic(cache) as temporary:
            array = open_memmap(temporary, "w+", np.uint8, shape)
            number = 0
            for path in paths:  # a shard at a time bounds memory
                for image in io.read_table(path, schemas.IMAGES, ["image"])["image"]:
                    if image.is_valid:
                        array[number] = decode_square(image.as_py(), side)
                        number += 1
            array.flush()
    return row, np.load(cache, mmap_mode="r", allow_pickle=False)
