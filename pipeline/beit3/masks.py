"""Random masks of patches and text ids, as in BEiT3, seeded by item.

Letters: B batch, P patches, T text ids.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from alignrec.pipeline.beit3.tokenizer import UNK

MASKED_PATCHES_SHARE = 0.4  # BEiT3
MASKED_UNPAIRED_SHARE = 0.15  # of text ids if the image is absent or hidden (BEiT3)
MIN_ASPECT_RATIO = 0.3  # of a masked block; the maximum is its inverse (BEiT)
MIN_BLOCK_SHARE = 16 / 196  # of the patches that a masked block covers (BEiT3)


class MaskRates(NamedTuple):
    """Shares of patches and text ids to mask, and of pairs whose image or text is hidden."""

    patches: float
    paired: float  # share of masked text ids of items with an image
    unpaired: float  # share of masked text ids of items whose image is absent or hidden
    hidden: float  # share of pairs whose image is hidden, and share whose text is


class Masks(NamedTuple):
    """Masks of B items."""

    patches: np.ndarray  # bool [B, P], masked
    pieces: np.ndarray  # bool [B, T], masked
    no_image: np.ndarray  # bool [B], absent or hidden
    no_text: np.ndarray  # bool [B], absent or hidden


def make_generators(items: np.ndarray, *seed: int) -> list[Generator]:
    """Return a generator per item, so that its masks do not depend on its batch or order."""
    return [np.random.default_rng((*seed, int(item))) for item in items]


def draw_masks(
    ids: np.ndarray,
    has_image: np.ndarray,
    has_text: np.ndarray,
    patches: int,
    rates: MaskRates,
    rngs: Sequence[Generator],
) -> Masks:
    """Draw masks of ids, int64 [B, T], and P patches; `has_image` and `has_text` are bool [B]."""
    is_pair = has_image & has_text
    draw = np.array([rng.random() for rng in rngs])
    no_image = ~has_image | (is_pair & (draw < rates.hidden))
    no_text = ~has_text | (is_pair & (draw >= 1 - rates.hidden))

    masked_patches = mask_patches(patches, rates.patches, rngs)
    text_rates = np.where(no_image, rates.unpaired, rates.paired)
    masked_pieces = mask_pieces(ids, text_rates, rngs)
    return Masks(
        masked_patches & ~no_image[:, None], masked_pieces & ~no_text[:, None], no_image, no_text
    )


def mask_patches(patches: int, share: float, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share of the patches of B images, bool [B, P].

    In blocks, as BEiT, if they form a square, otherwise singly.
    """
    grid = math.isqrt(patches)
    count = round(share * patches)
    if not patches or grid**2 != patches:
        return np.stack([rng.permutation(patches) for rng in rngs]) < count

    masks = np.zeros((len(rngs), grid, grid), bool)
    for mask, rng in zip(masks, rngs, strict=True):
        _mask_blocks(mask, count, rng)
        # mask the rest, too small for a block, at random
        free = np.flatnonzero(~mask.ravel())
        missing = count - int(mask.sum())
        mask.ravel()[rng.choice(free, missing, replace=False)] = True
    return masks.reshape(len(rngs), -1)


def _mask_blocks(mask: np.ndarray, count: int, rng: Generator) -> None:
    """Mask blocks of random size and aspect ratio that do not exceed `count` patches in all."""
    grid = len(mask)
    min_area = max(1, MIN_BLOCK_SHARE * grid * grid)
    max_log_aspect = -math.log(MIN_ASPECT_RATIO)
    for _ in range(mask.size):
        missing = count - int(mask.sum())
        if missing <= 0:
            break

        area = rng.uniform(min(missing, min_area), missing)
        aspect = math.exp(rng.uniform(-max_log_aspect, max_log_aspect))
        height = min(grid, max(1, round(math.sqrt(area * aspect))))
        width = min(grid, max(1, round(math.sqrt(area / aspect))))
        top = rng.integers(grid - height + 1)
        left = rng.integers(grid - width + 1)

        block = mask[top : top + height, left : left + width]
        if block.size - int(block.sum()) <= missing:
            block[:] = True


def mask_pieces(ids: np.ndarray, rates: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share, float [B], of the pieces of each row, without special ids: bool [B, T].

    The number of masked ones is rounded up.
    """
    is_piece = ids > UNK
    draws = np.stack([rng.random(ids.shape[1]) for rng in rngs])
    draws = np.where(is_piece, draws, 2.0)  # special ids come last
    counts = np.ceil(rates * is_piece.sum(axis=1)).astype(int)
    rank = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return rank < counts[:, None]
