"""What frozen encoders know of the items: the target of pre-training's distillation.

It is what feature set `linear` makes of their vectors. So CLS is asked for one vector, whatever encoders there are, in
which directions and modalities already count as much as they should.

Letters: I items, F width of an encoder's vectors, W of the target.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

from pipeline import io
from pipeline.ops import joining
from pipeline.ops.joining import POWER, WIDTH, Block
from pipeline.ops.rows import unit_rows

BLOCK = 4096  # items held at a time

Rows = Callable[[int, int], pa.Table]  # first item, last + 1 -> their rows, schema features(F)


def encoded(rows: Rows, n_items: int, path: Path) -> np.ndarray:
    """Return an encoder's vectors of all items, a memory map of float32 [I, F], from its file if that is there."""
    if not path.is_file():
        with io.atomic(path) as temporary:
            features: np.memmap[Any, Any] | None = None
            for start in range(0, n_items, BLOCK):
                vectors = io.matrix(rows(start, min(start + BLOCK, n_items))["vector"])
                if features is None:
                    features = open_memmap(temporary, "w+", np.float32, (n_items, vectors.shape[1]))
                features[start : start + len(vectors)] = vectors
            assert features is not None
            features.flush()
    return _mapped(path)


def target(features: Sequence[np.ndarray], blocks: Sequence[Block], path: Path) -> np.ndarray:
    """Return the target of all items, a memory map of float32 [I, W], from its file if that is there.

    Rows have length 1; that of an item which has nothing that the encoders read is zero.
    """
    n_items = len(features[0])

    def parts() -> Iterator[list[np.ndarray]]:
        return ([x[start : start + BLOCK] for x in features] for start in range(0, n_items, BLOCK))

    if not path.is_file():
        fit = joining.fit(parts, blocks, WIDTH, POWER)
        with io.atomic(path) as temporary:
            vectors = open_memmap(temporary, "w+", np.float32, (n_items, fit.width))
            for start, some in zip(range(0, n_items, BLOCK), parts(), strict=True):
                vectors[start : start + BLOCK] = unit_rows(fit(some))[0]
            vectors.flush()
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors
