"""All stored images of a dataset as squares of one size, on disk: what a network is trained on."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

import schemas
from pipeline import io
from pipeline.images import pixels


def decode(images: Path, side: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode every stored image once.

    Args:
        images: folder of the images stage.
        cache: file of the pixels; written if it does not exist.

    Returns:
        row int64 [I] (-1: no image) and pixels uint8 [n, S, S, 3], memory-mapped.
    """
    paths = io.shards(images, "images")
    status = [pq.read_table(p, columns=["status"])["status"].to_numpy(zero_copy_only=False) for p in paths]
    has = np.concatenate(status) == "ok"
    row = np.where(has, np.cumsum(has) - 1, -1)
    if not cache.is_file():
        shape = (int(has.sum()), side, side, 3)
        if not shape[0]:
            return row, np.empty(shape, np.uint8)
        with io.atomic(cache) as temporary:
            array = open_memmap(temporary, "w+", np.uint8, shape)
            number = 0
            for path in paths:  # a shard number a time bounds memory
                for image in io.read_table(path, schemas.IMAGES, ["image"])["image"]:
                    if image.is_valid:
                        array[number] = pixels.square(image.as_py(), side)
                        number += 1
            array.flush()
    return row, np.load(cache, mmap_mode="r", allow_pickle=False)
