"""What frozen encoders know of the items: the targets of pre-training's distillation.

Letters: I items, B batch, F width of an encoder's vectors, W of their targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

from pipeline import io
from pipeline.ops.rows import unit_rows
from pipeline.ops.whitening import applied, fit_pca

WIDTH = 128
"""W, at most: the directions in which an encoder's vectors vary most"""
MOST = 50_000
"""items that these directions are learned from, at most"""
BLOCK = 4096
"""items held at a time"""

Rows = Callable[[int, int], pa.Table]
"""first item, last + 1 -> their rows, schema features(F)"""


@dataclass(frozen=True)
class Target:
    """One encoder's targets: its vectors centred, reduced to W directions, whitened, of length 1."""

    name: str
    vectors: np.ndarray
    """float32 [I, W], a memory map; zeros where the item has nothing that the encoder reads"""
    reads: tuple[str, ...]
    """image, text"""

    def of(self, items: np.ndarray, no_image: np.ndarray, no_text: np.ndarray) -> np.ndarray:
        """Return the targets of B items, float32 [B, W]; zeros where all that the encoder reads is hidden."""
        hidden = np.ones(len(items), bool)
        for modality, absent in (("image", no_image), ("text", no_text)):
            if modality in self.reads:
                hidden &= absent
        return np.where(hidden[:, None], np.float32(0), self.vectors[items])


def target(name: str, reads: tuple[str, ...], rows: Rows, n_items: int, cache: Path, seed: int) -> Target:
    """Return an encoder's targets, from the cache if it is there.

    Args:
        name: of the encoder.
        reads: modalities.
        rows: makes its features.
        n_items: I.
        cache: file of the targets; written if it does not exist. The features lie beside it meanwhile.
        seed: of the sample that the directions are learned from.
    """
    if not cache.is_file():
        features = _features(rows, n_items, cache.with_suffix(".features.npy"))
        sample = np.sort(np.random.default_rng(seed).permutation(n_items)[:MOST])
        whitening = fit_pca(
            lambda: (features[part] for part in np.array_split(sample, -(-len(sample) // BLOCK))), WIDTH
        )
        with io.atomic(cache) as temporary:
            vectors = open_memmap(temporary, "w+", np.float32, (n_items, whitening.map.shape[1]))
            for start in range(0, n_items, BLOCK):
                vectors[start : start + BLOCK] = unit_rows(applied(whitening, features[start : start + BLOCK]))[0]
            vectors.flush()
        cache.with_suffix(".features.npy").unlink()
    return Target(name, np.load(cache, mmap_mode="r", allow_pickle=False), reads)


def _features(rows: Rows, n_items: int, path: Path) -> np.ndarray:
    """Encode all items into a file of float32 [I, F], and return it as a memory map."""
    with io.atomic(path) as temporary:
        features: np.memmap[Any, Any] | None = None
        for start in range(0, n_items, BLOCK):
            vectors = io.matrix(rows(start, min(start + BLOCK, n_items))["vector"])
            if features is None:
                features = open_memmap(temporary, "w+", np.float32, (n_items, vectors.shape[1]))
            features[start : start + len(vectors)] = vectors
        if features is not None:
            features.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)
