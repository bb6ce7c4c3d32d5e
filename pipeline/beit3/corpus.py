"""Items as pixels and text ids, and masked batches drawn from them, seeded by epoch and item.

Letters: I items, B batch, S image side, P patches, T text ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from alignrec.pipeline.beit3.params import HELD_OUT, MOST_HELD_OUT, Pretrain
from alignrec.pipeline.beit3.tokenizer import UNK, pad_rows
from alignrec.pipeline.images.decode import normalise_pixels
from alignrec.pipeline.runtime.seeds import seed_for

IMAGE_MASK = 0.4  # share of masked patches (BEiT3)
TEXT_ONLY = 0.15  # share of masked text ids if the image is absent or hidden (BEiT3)
ASPECT = 0.3  # minimum aspect ratio of a masked block; the maximum is its inverse (BEiT)
TOKENS = 128  # text ids per item of a micro-batch, with padding
BLOCK = 16 / 196  # minimum masked block, as a share of the patches (BEiT3)
COUNTED = 10_000  # maximum train items among which the most frequent targets are counted


@dataclass(frozen=True)
class TextParts(Sequence[np.ndarray]):
    """Sequence of the ids of each part, stored concatenated."""

    flat: np.ndarray  # int32, a memory map
    ends: np.ndarray  # int64 [n], the end of each part

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: Any) -> Any:
        return self.flat[self.ends[item - 1] if item else 0 : self.ends[item]]


@dataclass(frozen=True)
class Corpus:
    """All items of a dataset as text ids and pixels."""

    parts: Sequence[
        np.ndarray
    ]  # ids of all parts of texts, in item order, int [<= T]; only <s> </s> without text
    first: np.ndarray  # int64 [I + 1], the first part of each item, and the number of parts
    whole: np.ndarray  # int64 [I], number of ids of each text
    row: np.ndarray  # int64 [I], row in `pixels`; -1 without image
    pixels: np.ndarray  # uint8 [n, S, S, 3], a memory map; of `mini` float32 [n, W], vectors of frozen image encoders

    @cached_property
    def lengths(
        self,
    ) -> np.ndarray:  # number of ids per part, int64; a text's first part is its longest
        return np.array([len(ids) for ids in self.parts], np.int64)

    @property
    def lengths_of_items(self) -> np.ndarray:
        return self.lengths[self.first[:-1]]

    @property
    def usable(self) -> np.ndarray:
        return np.flatnonzero((self.lengths_of_items > 2) | (self.row >= 0))

    def share_read(self, times: float) -> float:
        """Return the mean share of a text that is expected to be read if each item is drawn `times` times."""
        held = np.add.reduceat(self.lengths - 2, self.first[:-1])
        read = held * (1 - (1 - 1 / np.diff(self.first)) ** times)
        texts = self.whole > 0
        return float((read[texts] / self.whole[texts]).mean()) if texts.any() else 1.0

    def draw_parts(self, items: np.ndarray, seed: int) -> np.ndarray:
        counts, own = self.first[items + 1] - self.first[items], seed_for(seed, "part of a text")
        long = np.flatnonzero(counts > 1)
        drawn = np.zeros(len(items), np.int64)
        drawn[long] = [
            rng.integers(counts[i])
            for i, rng in zip(long, make_generators(items[long], own), strict=True)
        ]
        return self.first[items] + drawn

    def all_parts(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all parts of B items, int64 [n], the position of each one's item, and its share of the text."""
        counts = self.first[items + 1] - self.first[items]
        owner = np.repeat(np.arange(len(items)), counts)
        parts = np.arange(len(owner)) + np.repeat(
            self.first[items] - np.cumsum(counts) + counts, counts
        )
        pieces = np.maximum(self.lengths[parts] - 2, 1)
        return (
            parts,
            owner,
            (pieces / np.bincount(owner, pieces, len(items))[owner]).astype(np.float32),
        )


class NetworkInputs(NamedTuple):
    """Inputs of B items, on the device."""

    image: Tensor  # float [B, 3, S, S]; of `mini` [B, sum of its image tokens' widths]
    ids: Tensor  # int64 [B, T]
    padding: Tensor  # bool [B, T]; True throughout if the text is absent or hidden
    no_image: Tensor  # bool [B], absent or hidden


class MaskedBatch(NamedTuple):
    """A batch, or a part of one, on the device."""

    inputs: NetworkInputs
    codes: Tensor  # int64 [B, P], visual tokens
    patch_mask: Tensor  # bool [B, P], masked patches
    piece_mask: Tensor  # bool [B, T], masked pieces
    teacher: Tensor | None = None  # float [B, W], of length 1, or zero if unknown

    def counts(self) -> Tensor:
        """Return the number of targets of each of TERMS, int64 [3]."""
        patches = self.patch_mask.sum()
        taught = (
            torch.zeros_like(patches) if self.teacher is None else self.teacher.any(dim=1).sum()
        )
        return torch.stack([patches, self.piece_mask.sum(), taught])


class MaskRates(NamedTuple):
    """Fractions of patches and text ids to mask, and of image-text pairs to hide one modality of."""

    patches: float
    paired: float  # share of masked text ids of items with an image
    unpaired: float  # share of masked text ids of items whose image is absent or hidden
    hidden: float  # share of pairs whose image is hidden, and share whose text is


@dataclass(frozen=True)
class PretrainTask:
    """Inputs of a pre-training run."""

    corpus: Corpus
    codes: np.ndarray  # int [n, P], visual tokens of `corpus.pixels`
    mask_id: int
    params: Pretrain
    seed: int
    device: torch.device
    share_held_out: float = HELD_OUT
    target: np.ndarray | None = None  # float32 [I, W], see `prepare.read_target`; None: no teachers

    @property
    def rates(self) -> MaskRates:
        return MaskRates(IMAGE_MASK, self.params.text_mask, TEXT_ONLY, self.params.hide)

    @cached_property
    def train(self) -> np.ndarray:
        return np.setdiff1d(self.corpus.usable, self.held_out)

    @cached_property
    def held_out(self) -> np.ndarray:
        order = np.random.default_rng(seed_for(self.seed, "held out")).permutation(
            self.corpus.usable
        )
        return np.sort(order[: min(round(self.share_held_out * len(order)), MOST_HELD_OUT)])

    @cached_property
    def most_frequent(self) -> dict[str, int]:
        """The most frequent visual token (`mim`) and piece (`mlm`) of at most COUNTED train items; -1 without any."""
        items = np.random.default_rng(seed_for(self.seed, "frequencies")).permutation(self.train)[
            :COUNTED
        ]
        ids = [
            np.zeros(0, np.int32),
            *(self.corpus.parts[part] for part in self.corpus.first[items]),
        ]
        pieces, rows = np.concatenate(ids), self.corpus.row[items]
        targets = {"mim": self.codes[rows[rows >= 0]].ravel(), "mlm": pieces[pieces > UNK]}
        return {
            term: int(np.bincount(seen).argmax()) if len(seen) else -1
            for term, seen in targets.items()
        }


def make_batch(
    task: PretrainTask,
    items: np.ndarray,
    rates: MaskRates,
    seed: int,
    parts: np.ndarray | None = None,
) -> MaskedBatch:
    """Move items, int64 [B], to the device with freshly drawn masks; `parts`, int64 [B], are drawn unless given."""
    corpus, patches = task.corpus, task.codes.shape[1]
    move = partial(torch.as_tensor, device=task.device)
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
    rngs = make_generators(items, seed)
    masked, pieces, no_image, no_text = draw_masks(ids, has_image, has_text, patches, rates, rngs)
    return MaskedBatch(
        NetworkInputs(
            read.to(task.device), move(ids), move(padding | no_text[:, None]), move(no_image)
        ),
        move(codes),
        move(masked),
        move(pieces),
        None if task.target is None else move(task.target[items]),
    )


def split_batch(items: np.ndarray, lengths: np.ndarray, least: int = 1) -> list[np.ndarray]:
    """Cut items, int64 [B], into batches of at least `least` that need no more memory than B texts of TOKENS ids."""
    room = TOKENS * len(items)
    if len(items) * lengths.max(initial=0) <= room:
        return [items]
    out: list[list[int]] = [[]]
    for place in np.argsort(lengths, kind="stable"):  # sorted by length, which saves padding
        if len(out[-1]) >= least and (len(out[-1]) + 1) * lengths[place] > room:
            out.append([])
        out[-1].append(place)
    if len(out[-1]) < least:
        out[-2:] = [out[-2] + out[-1]]
    return [items[part] for part in out]


def make_generators(items: np.ndarray, *seed: int) -> list[Generator]:
    """Return a generator per item, so that masks do not depend on the rest of the batch or on earlier draws."""
    return [np.random.default_rng((*seed, int(item))) for item in items]


def draw_masks(
    ids: np.ndarray,
    has_image: np.ndarray,
    has_text: np.ndarray,
    patches: int,
    rates: MaskRates,
    rngs: Sequence[Generator],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw the masks of ids, int64 [B, T], and P patches; `has_image` and `has_text` are bool [B].

    Returns masked patches, bool [B, P], masked pieces, bool [B, T], and absent or hidden images and texts, bool [B].
    """
    pair = has_image & has_text
    draw = np.array([rng.random() for rng in rngs])
    no_image = ~has_image | (pair & (draw < rates.hidden))
    no_text = ~has_text | (pair & (draw >= 1 - rates.hidden))
    masked = mask_patches(patches, rates.patches, rngs) & ~no_image[:, None]
    pieces = (
        mask_pieces(ids, np.where(no_image, rates.unpaired, rates.paired), rngs) & ~no_text[:, None]
    )
    return masked, pieces, no_image, no_text


def mask_patches(patches: int, share: float, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share of the patches of B images, bool [B, P]: in blocks, as BEiT, if they form a square, or singly."""
    grid, wanted = math.isqrt(patches), round(share * patches)
    if not patches or grid**2 != patches:
        return np.stack([rng.permutation(patches) for rng in rngs]) < wanted
    masks = np.zeros((len(rngs), grid, grid), bool)
    for mask, rng in zip(masks, rngs, strict=True):
        for _ in range(patches):
            left = wanted - int(mask.sum())
            if left <= 0:
                break
            # mask a block of random size and aspect ratio, unless that would exceed what is left
            area = rng.uniform(min(left, max(1, BLOCK * grid * grid)), left)
            aspect = math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
            height = min(grid, max(1, round(math.sqrt(area * aspect))))
            width = min(grid, max(1, round(math.sqrt(area / aspect))))
            top, start = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
            block = mask[top : top + height, start : start + width]
            if block.size - int(block.sum()) <= left:
                block[:] = True
        free = np.flatnonzero(~mask.ravel())  # mask the rest, too small for a block, at random
        mask.ravel()[rng.choice(free, wanted - int(mask.sum()), replace=False)] = True
    return masks.reshape(len(rngs), -1)


def mask_pieces(ids: np.ndarray, rates: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Mask a share, float [B], of the pieces of each row, rounded up, without special ids: bool [B, T]."""
    draws = np.stack([rng.random(ids.shape[1]) for rng in rngs])
    draws = np.where(ids > UNK, draws, 2.0)  # special ids come last
    wanted = np.ceil(rates * (ids > UNK).sum(axis=1)).astype(int)
    rank = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return rank < wanted[:, None]
