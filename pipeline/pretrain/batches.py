"""What one pre-training works on, and batches of it on the device.

Letters: I items, B batch, P patches, T text ids, M partners of an item at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.beit3.tokenizer import UNK, pad
from pipeline.config import Pretrain
from pipeline.images import pixels
from pipeline.pretrain import corpus as data
from pipeline.pretrain import partners
from pipeline.pretrain.corpus import Corpus, Rates
from pipeline.pretrain.losses import Company, Shown, Step
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class Task:
    """All that a training depends on."""

    corpus: Corpus
    codes: np.ndarray
    """int [n, P], visual tokens of `corpus.pictures`"""
    mask_id: int
    params: Pretrain
    seed: int
    device: torch.device
    partners: np.ndarray | None = None
    """int64 [I, M], see `collaborative.partners`; None: the term is off"""

    @property
    def rates(self) -> Rates:
        """How much is hidden while training."""
        p = self.params
        return Rates(p.image_mask, p.text_mask, p.text_only_mask, p.hide)

    @cached_property
    def train(self) -> np.ndarray:
        """Items to learn from, int64, sorted."""
        return self._split[0]

    @cached_property
    def held_out(self) -> np.ndarray:
        """Items that only measure, int64, sorted."""
        return self._split[1]

    @property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return split(self.corpus.usable, self.params.held_out, seed_for(self.seed, "held out"))


def split(usable: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items to learn from and items that only measure, both int64, sorted."""
    order = np.random.default_rng(seed).permutation(usable)
    n = round(share * len(order))
    return np.sort(order[n:]), np.sort(order[:n])


def batch(task: Task, items: np.ndarray, rates: Rates, seed: int, *, company: bool = False) -> Step:
    """Draw the masks of some items and bring all of it to the device.

    Args:
        task: data.
        items: int64 [B].
        rates: what is hidden.
        seed: of what is drawn; an item's draws hang on nothing else.
        company: whether each item is to have one of its partners with it.
    """
    shown, ids, has_text = _shown(task, items)
    corpus, patches = task.corpus, task.codes.shape[1]
    rngs = data.draws(items, seed)
    near = _company(task, items, rngs) if company else None  # before the masks, which draw as often as texts are long
    has_image = corpus.row[items] >= 0
    m = data.masked(ids, has_image, has_text, math.isqrt(patches), rates, rngs)
    codes = np.zeros((len(items), patches), np.int64)
    codes[has_image] = task.codes[corpus.row[items][has_image]]
    move = _mover(task)
    return Step(
        shown._replace(padding=shown.padding | move(m.no_text)[:, None], no_image=move(m.no_image)),
        move(codes),
        move(m.patches),
        move(m.tokens),
        move(has_image),
        move(ids > UNK),
        near,
    )


def _company(task: Task, items: np.ndarray, rngs: list[np.random.Generator]) -> Company | None:
    if task.partners is None:
        return None
    kin = task.partners[items]  # [B, M]
    partner = partners.draw(kin, rngs)
    row = np.flatnonzero(np.isin(partner, task.corpus.usable))
    move = _mover(task)
    shown, *_ = _shown(task, partner[row])
    return Company(move(row), move(items[row]), move(partner[row]), move(kin[row]), shown)


def _shown(task: Task, items: np.ndarray) -> tuple[Shown, np.ndarray, np.ndarray]:
    """Return items with all that they have; also their ids, int64 [B, T], and who has a text, bool [B]."""
    corpus, move = task.corpus, _mover(task)
    texts = [corpus.texts[i] for i in items]
    ids, padding = pad(texts)
    has_text = np.array([len(text) > 2 for text in texts], bool)
    has_image, side = corpus.row[items] >= 0, corpus.pictures.shape[1]
    image = np.zeros((len(items), side, side, 3), np.uint8)
    image[has_image] = corpus.pictures[corpus.row[items][has_image]]
    padding |= ~has_text[:, None]
    return Shown(pixels.normalised(image).to(task.device), move(ids), move(padding), move(~has_image)), ids, has_text


def _mover(task: Task) -> Callable[[np.ndarray], Tensor]:
    def move(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(task.device)

    return move
