"""What pre-training reads: items as pixels, visual tokens and text ids; batches of them; what of a batch is masked.

Letters: I items, B batch, S image side, g patches a side, P = g g patches, T text ids.
Every draw comes from a seed that names its epoch and item, so that a resumed run repeats nothing and skips nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap
from numpy.random import Generator

import schemas
from pipeline import io
from pipeline.beit3.tokenizer import UNK
from pipeline.images import pixels

ASPECT = 0.3  # of a masked block, at least; at most its inverse (BEiT)
BLOCK = 16 / 196  # smallest masked block, as a share of the patches (BEiT3: 16 of 196)


@dataclass(frozen=True)
class Corpus:
    """All items that have anything to learn from."""

    texts: list[np.ndarray]
    """I arrays of ids, int64 [<= T]; only <s> </s> where there is no text"""
    row: np.ndarray
    """int64 [I], the item's row in `pictures`; -1 where there is no picture"""
    pictures: np.ndarray
    """uint8 [n, S, S, 3], a memory map"""

    @property
    def has_text(self) -> np.ndarray:
        """bool [I]."""
        return np.array([len(ids) > 2 for ids in self.texts], bool)

    @property
    def has_image(self) -> np.ndarray:
        """bool [I]."""
        return self.row >= 0

    @property
    def usable(self) -> np.ndarray:
        """Items with text or picture, int64."""
        return np.flatnonzero(self.has_text | self.has_image)

    def rarity(self, vocab: int) -> np.ndarray:
        """Return log(I / (1 + texts that have it)) of each id, 0 where that would be less: float32 [vocab]."""
        held = np.bincount(np.concatenate([np.unique(ids) for ids in self.texts]), minlength=vocab)
        return np.log(np.maximum(len(self.texts) / (1 + held), 1)).astype(np.float32)


def decode(images: Path, side: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode every stored picture once.

    Args:
        images: folder of the images stage.
        side: S.
        cache: file that the pixels are kept in; made if it is not there.

    Returns:
        row int64 [I] (-1: no picture) and pictures uint8 [n, S, S, 3], memory-mapped.
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
            kept = open_memmap(temporary, "w+", np.uint8, shape)
            at = 0
            for path in paths:  # a shard at a time bounds memory
                for image in io.read_table(path, schemas.IMAGES, ["image"])["image"]:
                    if image.is_valid:
                        kept[at] = pixels.square(image.as_py(), side)
                        at += 1
            kept.flush()
    return row, np.load(cache, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Masked:
    """What of a batch is hidden."""

    patches: np.ndarray
    """bool [B, P], masked and to be predicted; none of an absent picture"""
    tokens: np.ndarray
    """bool [B, T], masked and to be predicted"""
    no_image: np.ndarray
    """bool [B], no picture, or hidden in this step"""
    no_text: np.ndarray
    """bool [B], no text, or hidden in this step"""


@dataclass(frozen=True)
class Rates:
    """How much is hidden."""

    patches: float
    """share of the patches, block-wise"""
    paired: float
    """share of the text ids of a pair"""
    alone: float
    """share of the text ids without their picture"""
    hidden: float
    """share of pairs that are shown as picture alone, and as text alone"""


def batches(items: np.ndarray, size: int, rng: Generator) -> list[np.ndarray]:
    """Return every item once, in random batches of `size` or one less or so, as equal as can be: int64 each.

    Batches of like length would save padding, but texts of one length are of one kind, and such batches teach worse.
    """
    return np.array_split(rng.permutation(items), max(1, math.ceil(len(items) / size)))


def draws(items: np.ndarray, *seed: int) -> list[Generator]:
    """Return a source of randomness for each item, which hangs on nothing but the item and `seed`.

    So what is masked is the same however a batch is cut into parts, and whatever was done before.
    """
    return [np.random.default_rng((*seed, int(item))) for item in items]


def masked(
    ids: np.ndarray, has_image: np.ndarray, has_text: np.ndarray, grid: int, rates: Rates, rngs: Sequence[Generator]
) -> Masked:
    """Draw what is hidden of a batch.

    Args:
        ids: int64 [B, T], padded.
        has_image: bool [B].
        has_text: bool [B].
        grid: g.
        rates: shares.
        rngs: draws, one of each item.
    """
    pair = has_image & has_text
    lot = np.array([rng.random() for rng in rngs])
    no_image = ~has_image | (pair & (lot < rates.hidden))
    no_text = ~has_text | (pair & (lot >= 1 - rates.hidden))
    patches = blocks(grid, rates.patches, rngs) & ~no_image[:, None]
    tokens = pieces(ids, np.where(no_image, rates.alone, rates.paired), rngs) & ~no_text[:, None]
    return Masked(patches, tokens, no_image, no_text)


def blocks(grid: int, share: float, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask `share` of the patches of a picture for each rng in rectangular blocks, as many in each: bool [B, P].

    BEiT's rule: blocks of random size and aspect until the number is reached; what no block fits is drawn singly.
    """
    goal = round(share * grid * grid)
    out = np.zeros((len(rngs), grid, grid), bool)
    for mask, rng in zip(out, rngs, strict=True):  # pictures are independent, and a block depends on those before it
        for _ in range(grid * grid):
            left = goal - int(mask.sum())
            if left <= 0:
                break
            _block(mask, left, rng)
        free = np.flatnonzero(~mask.ravel())
        mask.ravel()[rng.choice(free, goal - int(mask.sum()), replace=False)] = True
    return out.reshape(len(rngs), -1)


def _block(mask: np.ndarray, left: int, rng: Generator) -> None:
    """Mask one more block of at most `left` new patches, if the one drawn is that small."""
    grid = len(mask)
    area = rng.uniform(min(left, max(1, BLOCK * grid * grid)), left)
    aspect = math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
    height = min(grid, max(1, round(math.sqrt(area * aspect))))
    width = min(grid, max(1, round(math.sqrt(area / aspect))))
    top, start = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
    block = mask[top : top + height, start : start + width]
    if block.size - int(block.sum()) <= left:
        block[:] = True


def pieces(ids: np.ndarray, rates: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask whole pieces of each text, special ids never: bool [B, T].

    Args:
        ids: int64 [B, T].
        rates: float [B], share of each row's pieces, rounded up.
        rngs: draws, one of each row; a row's mask does not hang on T.
    """
    lots = np.stack([rng.random(ids.shape[1]) for rng in rngs])
    lot = np.where(ids > UNK, lots, 2.0)
    wanted = np.ceil(rates * (ids > UNK).sum(axis=1)).astype(int)
    rank = lot.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return rank < wanted[:, None]
