"""Items as pixels and text ids, and masked batches drawn from them, seeded by epoch and item.

Letters: I items, B batch, S image side, P patches, T text ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.beit3.masks import (
    MASKED_PATCHES_SHARE,
    MASKED_UNPAIRED_SHARE,
    MaskRates,
    draw_masks,
    make_generators,
)
from alignrec.pipeline.beit3.params import (
    HELD_OUT_SHARE,
    HELD_OUT_TO_STOP,
    MAX_HELD_OUT,
    MAX_SHARE_TO_STOP,
    Pretrain,
)
from alignrec.pipeline.beit3.tokenizer import UNK, pad_rows
from alignrec.pipeline.images.decode import normalise_pixels
from alignrec.pipeline.runtime.seeds import seed_for

TOKENS_PER_ITEM = 128  # text ids per item of a micro-batch, with padding
MAX_COUNTED_ITEMS = 10_000  # train items among which the most frequent targets are counted


@dataclass(frozen=True)
class TextParts(Sequence[np.ndarray]):
    """Sequence of the ids of each part, stored concatenated."""

    flat: np.ndarray  # int32, a memory map
    ends: np.ndarray  # int64 [n], the end of each part

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: Any) -> Any:
        start = self.ends[item - 1] if item else 0
        return self.flat[start : self.ends[item]]


@dataclass(frozen=True)
class Corpus:
    """All items of a dataset as text ids and pixels."""

    # ids of all parts of texts, in item order, int [<= T]; only <s> </s> without text
    parts: Sequence[np.ndarray]
    first: np.ndarray  # int64 [I + 1], the first part of each item, and the number of parts
    whole: np.ndarray  # int64 [I], number of ids of each text
    row: np.ndarray  # int64 [I], row in `pixels`; -1 without image
    # uint8 [n, S, S, 3], a memory map; of `mini` float32 [n, W], vectors of frozen image encoders
    pixels: np.ndarray

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

    def share_read(self, passes: float) -> float:
        """Return the mean share of a text that `passes` draws of each item read on average."""
        pieces = np.add.reduceat(self.lengths - 2, self.first[:-1])
        share_missed = (1 - 1 / np.diff(self.first)) ** passes
        pieces_read = pieces * (1 - share_missed)
        has_text = self.whole > 0
        if not has_text.any():
            return 1.0
        return float((pieces_read[has_text] / self.whole[has_text]).mean())

    def draw_parts(self, items: np.ndarray, seed: int) -> np.ndarray:
        counts = self.first[items + 1] - self.first[items]
        is_long = np.flatnonzero(counts > 1)
        rngs = make_generators(items[is_long], seed_for(seed, "part of a text"))
        offset = np.zeros(len(items), np.int64)
        for i, rng in zip(is_long, rngs, strict=True):
            offset[i] = rng.integers(counts[i])
        return self.first[items] + offset

    def all_parts(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all parts of B items, int64 [n], each one's item, and its share of the text.

        Items are positions in the batch, int64 [n]; shares are float32 [n].
        """
        counts = self.first[items + 1] - self.first[items]
        owner = np.repeat(np.arange(len(items)), counts)
        before = np.cumsum(counts) - counts  # parts of earlier items of the batch
        parts = np.arange(len(owner)) + np.repeat(self.first[items] - before, counts)

        pieces = np.maximum(self.lengths[parts] - 2, 1)
        pieces_of_items = np.bincount(owner, pieces, len(items))
        return parts, owner, (pieces / pieces_of_items[owner]).astype(np.float32)


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
        """Return the number of targets of each of `losses.TERMS`, int64 [3]."""
        patches = self.patch_mask.sum()
        taught = torch.zeros_like(patches)
        if self.teacher is not None:
            taught = self.teacher.any(dim=1).sum()
        return torch.stack([patches, self.piece_mask.sum(), taught])


@dataclass(frozen=True)
class PretrainTask:
    """Inputs of a pre-training run."""

    corpus: Corpus
    codes: np.ndarray  # int [n, P], visual tokens of `corpus.pixels`
    mask_id: int
    params: Pretrain
    seed: int
    device: torch.device
    share_held_out: float = HELD_OUT_SHARE
    target: np.ndarray | None = None  # float32 [I, W], see `prepare.read_target`; None: no teachers

    @property
    def rates(self) -> MaskRates:
        paired, hidden = self.params.text_mask, self.params.hide
        return MaskRates(MASKED_PATCHES_SHARE, paired, MASKED_UNPAIRED_SHARE, hidden)

    @cached_property
    def train(self) -> np.ndarray:
        return np.setdiff1d(self.corpus.usable, self.held_out)

    @cached_property
    def held_out(self) -> np.ndarray:
        rng = np.random.default_rng(seed_for(self.seed, "held out"))
        order = rng.permutation(self.corpus.usable)
        count = round(self.share_held_out * len(order))
        if self.params.patience:
            wanted = min(HELD_OUT_TO_STOP, round(MAX_SHARE_TO_STOP * len(order)))
            count = max(count, wanted)
        count = min(count, MAX_HELD_OUT)
        return np.sort(order[:count])

    @cached_property
    def most_frequent(self) -> dict[str, int]:
        """Most frequent visual token (`mim`) and piece (`mlm`) of train items; -1 without any."""
        rng = np.random.default_rng(seed_for(self.seed, "frequencies"))
        items = rng.permutation(self.train)[:MAX_COUNTED_ITEMS]
        parts = [self.corpus.parts[part] for part in self.corpus.first[items]]
        pieces = np.concatenate([np.zeros(0, np.int32), *parts])
        rows = self.corpus.row[items]
        codes = self.codes[rows[rows >= 0]].ravel()
        return {"mim": _most_frequent(codes), "mlm": _most_frequent(pieces[pieces > UNK])}


def _most_frequent(values: np.ndarray) -> int:
    return int(np.bincount(values).argmax()) if len(values) else -1


def make_batch(
    task: PretrainTask,
    items: np.ndarray,
    rates: MaskRates,
    seed: int,
    parts: np.ndarray | None = None,
) -> MaskedBatch:
    """Move items, int64 [B], to the device with freshly drawn masks.

    The parts of their texts, int64 [B], are drawn unless given.
    """
    corpus = task.corpus
    if parts is None:
        parts = corpus.draw_parts(items, seed)
    texts = [corpus.parts[part] for part in parts]
    ids, padding = pad_rows(texts)
    has_text = np.array([len(text) > 2 for text in texts], bool)

    has_image = corpus.row[items] >= 0
    rows = corpus.row[items][has_image]
    image = _fill_rows(corpus.pixels, rows, has_image, corpus.pixels.dtype)
    codes = _fill_rows(task.codes, rows, has_image, np.int64)
    pixels = normalise_pixels(image) if image.dtype == np.uint8 else torch.from_numpy(image)

    rngs = make_generators(items, seed)
    masks = draw_masks(ids, has_image, has_text, task.codes.shape[1], rates, rngs)
    hidden_ids = padding | masks.no_text[:, None]

    move = partial(torch.as_tensor, device=task.device)
    return MaskedBatch(
        NetworkInputs(pixels.to(task.device), move(ids), move(hidden_ids), move(masks.no_image)),
        move(codes),
        move(masks.patches),
        move(masks.pieces),
        None if task.target is None else move(task.target[items]),
    )


def _fill_rows(values: np.ndarray, rows: np.ndarray, present: np.ndarray, dtype: Any) -> np.ndarray:
    """Return `values[rows]` where `present`, bool [B], and zeros elsewhere: [B, ...]."""
    out = np.zeros((len(present), *values.shape[1:]), dtype)
    out[present] = values[rows]
    return out


def split_batch(items: np.ndarray, lengths: np.ndarray, min_items: int = 1) -> list[np.ndarray]:
    """Cut items, int64 [B], into batches of at least `min_items` that bound memory.

    None has more ids, with padding, than B texts of TOKENS_PER_ITEM.
    """
    max_tokens = TOKENS_PER_ITEM * len(items)
    if len(items) * lengths.max(initial=0) <= max_tokens:
        return [items]

    batches: list[list[int]] = [[]]
    for place in np.argsort(lengths, kind="stable"):  # sorted by length, which saves padding
        size = len(batches[-1])
        if size >= min_items and (size + 1) * lengths[place] > max_tokens:
            batches.append([])
        batches[-1].append(place)
    if len(batches[-1]) < min_items:
        last = batches.pop()
        batches[-1] += last
    return [items[batch] for batch in batches]
