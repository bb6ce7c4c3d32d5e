"""Vectors of frozen image encoders, which are the image tokens of BEiT3 `mini`.

Letters: I items or images, n some of them, W width of the vectors of all image tokens, W_p of one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_SAMPLED_IMAGES = 20_000  # from which projections and visual tokens are learned
HASH_BYTES = 16  # of an image's SHA-256


@dataclass(frozen=True)
class ImageVectors:
    """The vectors of all items' images."""

    vectors: np.ndarray  # float32 [I, W], a memory map; zero without image
    row: np.ndarray  # int64 [I], the item's number; -1 without image
    widths: tuple[int, ...]  # W_p of each token; empty without images

    @property
    def items(self) -> np.ndarray:
        return np.flatnonzero(self.row >= 0)

    def tokens(self, items: np.ndarray) -> list[np.ndarray]:
        """Return the vectors of each image token: float32 [n, W_p] each."""
        ends = np.cumsum(self.widths)
        return np.split(self.vectors[items], ends[:-1], axis=1)

    def sample(self, seed: int) -> np.ndarray:
        order = np.random.default_rng(seed).permutation(self.items)
        return np.sort(order[:MAX_SAMPLED_IMAGES])


class ImageVectorCache:
    """Vectors of the catalogue's images, found by image hash."""

    def __init__(self, hashes: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """Index image hashes, S16 [I], and vectors of each image token, float32 [I, W_p] each."""
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._parts = parts

    def look_up(self, images: Sequence[bytes], width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors, float32 [n, W], zeros for unknown images, and the rows of these."""
        out = np.zeros((len(images), width), np.float32)
        if not len(self._hashes):
            return out, np.arange(len(images))

        hashes = digest_images(images)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        is_cached = self._hashes[places] == hashes
        if is_cached.any():
            rows = self._order[places[is_cached]]
            out[is_cached] = np.hstack([part[rows] for part in self._parts])
        return out, np.flatnonzero(~is_cached)


def digest_images(images: Sequence[bytes | None]) -> np.ndarray:
    """Return the start of each image's SHA-256, S16 [n]; a missing image hashes as empty."""
    digests = [hashlib.sha256(image or b"").digest() for image in images]
    return np.array([digest[:HASH_BYTES] for digest in digests], f"S{HASH_BYTES}")
