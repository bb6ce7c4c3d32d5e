"""The task of pre-training: items as pixels and text ids, their batches on the device, and masks.

Letters: I items, B batch, S image side, g patches a side, P = g g patches, T text ids.
Each draw has a seed of its epoch and item, so a resumed run draws the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from alignrec.pipeline.beit3.tokenizer import UNK, pad_rows
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.images.pixels import normalise_pixels
from alignrec.pipeline.pretrain.losses import NetworkInputs, Step
from alignrec.pipeline.pretrain.params import HELD_OUT, MOST_HELD_OUT, Pretrain

IMAGE_MASK = 0.4  # share of the patches that are masked, in blocks (BEiT3)
TEXT_ONLY = 0.15  # share of the text ids that are masked where the image is absent or hidden (BEiT3)
ASPECT = 0.3  # of a masked block, at least; at most its inverse (BEiT)
TOKENS = 128  # of an item, with padding, on average over those that are on the device at a time
BLOCK = 16 / 196  # smallest masked block, as a share of the patches (BEiT3: 16 of 196)


@dataclass(frozen=True)
class Ids(Sequence[np.ndarray]):
    """Ids of parts of texts, concatenated."""

    flat: np.ndarray  # int32, a memory map
    ends: np.ndarray  # int64 [n], where each ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: Any) -> Any:
        return self.flat[self.ends[item - 1] if item else 0 : self.ends[item]]


@dataclass(frozen=True)
class Corpus:
    """All items of a dataset."""

    parts: Sequence[np.ndarray]  # ids of all parts of texts, in item order, int [<= T]; only <s> </s> without text
    first: np.ndarray  # int64 [I + 1], the first part of each item, and the number of parts
    whole: np.ndarray  # int64 [I], ids of each whole text
    row: np.ndarray  # int64 [I], row in `pixels`; -1 without image
    pixels: np.ndarray
    """uint8 [n, S, S, 3], a memory map; of `mini` float32 [n, W], image vectors of frozen encoders"""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Ids of each part, int64; no part of a text is longer than its first."""
        return np.array([len(ids) for ids in self.parts], np.int64)

    @property
    def lengths_of_items(self) -> np.ndarray:
        return self.lengths[self.first[:-1]]

    @property
    def usable(self) -> np.ndarray:
        return np.flatnonzero((self.lengths_of_items > 2) | (self.row >= 0))

    def share_read(self, times: float) -> float:
        """Return the share of a text that training reads in expectation, on average, if each is read so many times."""
        held = np.add.reduceat(self.lengths - 2, self.first[:-1])
        read = held * (1 - (1 - 1 / np.diff(self.first)) ** times)
        texts = self.whole > 0
        return float((read[texts] / self.whole[texts]).mean()) if texts.any() else 1.0

    def draw_parts(self, items: np.ndarray, seed: int) -> np.ndarray:
        """Draw a part of each item's text, int64 [B], from the seed and the item's number."""
        counts, own = self.first[items + 1] - self.first[items], seed_for(seed, "part of a text")
        long = np.flatnonzero(counts > 1)
        drawn = np.zeros(len(items), np.int64)
        drawn[long] = [rng.integers(counts[i]) for i, rng in zip(long, item_generators(items[long], own), strict=True)]
        return self.first[items] + drawn

    def all_parts(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all parts of B items, int64 [n], the place of each one's item, and its share of the text."""
        counts = self.first[items + 1] - self.first[items]
        owner = np.repeat(np.arange(len(items)), counts)
        parts = np.arange(len(owner)) + np.repeat(self.first[items] - np.cumsum(counts) + counts, counts)
        pieces = np.maximum(self.lengths[parts] - 2, 1)
        return parts, owner, (pieces / np.bincount(owner, pieces, len(items))[owner]).astype(np.float32)


@dataclass(frozen=True)
class Masks:
    """The masks of a batch."""

    patches: np.ndarray  # bool [B, P], masked and to be predicted; none of an absent image
    tokens: np.ndarray  # bool [B, T], masked and to be predicted
    no_image: np.ndarray  # bool [B], no image, or hidden in this step
    no_text: np.ndarray  # bool [B], no text, or hidden in this step


class Rates(NamedTuple):
    """Shares that are masked or hidden."""

    patches: float  # share of the patches, block-wise
    paired: float  # share of the text ids of a pair
    unpaired: float  # share of the text ids whose image is absent or hidden
    hidden: float  # share of pairs whose image is hidden, and of pairs whose text is


@dataclass(frozen=True)
class Task:
    """Inputs of a training."""

    corpus: Corpus
    codes: np.ndarray  # int [n, P], visual tokens of `corpus.pixels`
    mask_id: int
    params: Pretrain
    seed: int
    device: torch.device
    share_held_out: float = HELD_OUT
    target: np.ndarray | None = None  # float32 [I, W], see `prepare.read_target`; None: no teachers

    def move(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(self.device)

    @property
    def rates(self) -> Rates:
        return Rates(IMAGE_MASK, self.params.text_mask, TEXT_ONLY, self.params.hide)

    @cached_property
    def train(self) -> np.ndarray:
        return np.setdiff1d(self.corpus.usable, self.held_out)

    @cached_property
    def held_out(self) -> np.ndarray:
        order = np.random.default_rng(seed_for(self.seed, "held out")).permutation(self.corpus.usable)
        return np.sort(order[: min(round(self.share_held_out * len(order)), MOST_HELD_OUT)])


def make_batch(task: Task, items: np.ndarray, rates: Rates, seed: int, parts: np.ndarray | None = None) -> Step:
    """Draw the masks of items int64 [B], each from the seed and its number, and move all to the device.

    Of each text it reads the given part, int64 [B], or draws one.
    """
    corpus, move, patches = task.corpus, task.move, task.codes.shape[1]
    texts = [corpus.parts[i] for i in (corpus.draw_parts(items, seed) if parts is None else parts)]
    ids, padding = pad_rows(texts)
    has_text = np.array([len(text) > 2 for text in texts], bool)
    has_image = corpus.row[items] >= 0
    rows = corpus.row[items][has_image]
    image = np.zeros((len(items), *corpus.pixels.shape[1:]), corpus.pixels.dtype)
    image[has_image] = corpus.pixels[rows]
    read = normalise_pixels(image) if image.dtype == np.uint8 else torch.from_numpy(image)
    codes = np.zeros((len(items), patches), np.int64)
    codes[has_image] = task.codes[rows]
    masks = draw_masks(ids, has_image, has_text, patches, rates, item_generators(items, seed))
    return Step(
        NetworkInputs(read.to(task.device), move(ids), move(padding | masks.no_text[:, None]), move(masks.no_image)),
        move(codes),
        move(masks.patches),
        move(masks.tokens),
        None if task.target is None else move(task.target[items]),
    )


def cut_batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut items into batches of at most `size`, as equal as possible: int64 each.

    Batches of texts of equal length would save padding, but similar texts made features worse.
    """
    return np.array_split(order, max(1, math.ceil(len(order) / size)))


def micro_batches(items: np.ndarray, lengths: np.ndarray, least: int = 1) -> list[np.ndarray]:
    """Cut items int64 [B], of int64 [B] tokens, into batches that need no more memory than texts of TOKENS ids.

    A batch of short texts stays whole. Others are sorted by length, to save padding. Each has at least `least` items.
    """
    room = TOKENS * len(items)
    if len(items) * lengths.max(initial=0) <= room:
        return [items]
    order = np.argsort(lengths, kind="stable")
    out: list[list[int]] = [[]]
    for place in order:  # where a batch ends depends on those before
        if len(out[-1]) >= least and (len(out[-1]) + 1) * lengths[place] > room:
            out.append([])
        out[-1].append(place)
    if len(out[-1]) < least:
        out[-2:] = [out[-2] + out[-1]]
    return [items[part] for part in out]


def item_generators(items: np.ndarray, *seed: int) -> list[Generator]:
    """Return a generator per item, so that masks depend neither on the parts of a batch nor on earlier draws."""
    return [np.random.default_rng((*seed, int(item))) for item in items]


def draw_masks(
    ids: np.ndarray, has_image: np.ndarray, has_text: np.ndarray, patches: int, rates: Rates, rngs: Sequence[Generator]
) -> Masks:
    """Draw the masks of a batch of ids int64 [B, T] and P patches; `has_image` and `has_text` are bool [B]."""
    pair = has_image & has_text
    draw = np.array([rng.random() for rng in rngs])
    no_image = ~has_image | (pair & (draw < rates.hidden))
    no_text = ~has_text | (pair & (draw >= 1 - rates.hidden))
    masked = mask_patches(patches, rates.patches, rngs) & ~no_image[:, None]
    tokens = mask_pieces(ids, np.where(no_image, rates.unpaired, rates.paired), rngs) & ~no_text[:, None]
    return Masks(masked, tokens, no_image, no_text)


def mask_patches(patches: int, share: float, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share of the patches of B images, bool [B, P]: in blocks if they are a square, otherwise singly."""
    if not patches:
        return np.zeros((len(rngs), 0), bool)
    if (grid := math.isqrt(patches)) ** 2 == patches:
        return mask_blocks(grid, share, rngs)
    rank = np.stack([rng.permutation(patches) for rng in rngs])
    return rank < round(share * patches)


def mask_blocks(grid: int, share: float, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask the same share of the patches of B images in rectangular blocks: bool [B, P].

    BEiT's rule: blocks of random size and aspect ratio until the number is reached; the last patches are drawn singly.
    """
    wanted = round(share * grid * grid)
    masks = np.zeros((len(rngs), grid, grid), bool)
    for mask, rng in zip(masks, rngs, strict=True):  # images are independent; a block depends on those before it
        for _ in range(grid * grid):
            left = wanted - int(mask.sum())
            if left <= 0:
                break
            _mask_block(mask, left, rng)
        free = np.flatnonzero(~mask.ravel())
        mask.ravel()[rng.choice(free, wanted - int(mask.sum()), replace=False)] = True
    return masks.reshape(len(rngs), -1)


def _mask_block(mask: np.ndarray, left: int, rng: Generator) -> None:
    grid = len(mask)
    area = rng.uniform(min(left, max(1, BLOCK * grid * grid)), left)
    aspect = math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
    height = min(grid, max(1, round(math.sqrt(area * aspect))))
    width = min(grid, max(1, round(math.sqrt(area / aspect))))
    top, start = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
    block = mask[top : top + height, start : start + width]
    if block.size - int(block.sum()) <= left:
        block[:] = True


def mask_pieces(ids: np.ndarray, rates: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share, float [B], rounded up, of each row's pieces, special ids never: bool [B, T], whatever T."""
    draws = np.stack([rng.random(ids.shape[1]) for rng in rngs])
    draws = np.where(ids > UNK, draws, 2.0)  # special ids come last
    wanted = np.ceil(rates * (ids > UNK).sum(axis=1)).astype(int)
    rank = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return rank < wanted[:, None]
