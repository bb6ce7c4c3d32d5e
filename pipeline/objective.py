"""What BEiT3 learns from: masked image and masked language modelling in one pass, and a summary held by CLS.

    L = L_MIM + L_MLM + summary * (L_patches + L_words)

L_MIM and L_MLM are cross-entropies over masked positions only. They leave CLS, which is the item's feature, untrained.
So CLS alone must also tell what the item is: which visual token is at each place, which pieces its text has, the
masked ones included. Without that, a network trained from scratch on a small dataset had worse features than the same
network untrained; a contrastive term between image and text in its place made them worse than it does.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.beit3 import BEiT3


class Summary(nn.Module):
    """Reads an item off its CLS vector: visual tokens by place, pieces of text without order."""

    def __init__(self, width: int, patches: int, codes: int, vocab: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.place = nn.Parameter(torch.zeros(patches, width))
        self.look = nn.Linear(width, width)
        self.codes = nn.Linear(width, max(1, codes))
        self.words = nn.Linear(width, vocab)
        nn.init.trunc_normal_(self.place, std=0.02)

    def forward(self, cls: Tensor) -> tuple[Tensor, Tensor]:
        """CLS [B, D] -> logits of visual tokens [B, P, C] and of pieces [B, V]."""
        told = self.read(cls)  # [B, D]
        return self.codes(F.gelu(self.look(told[:, None] + self.place))), self.words(told)


class Step(NamedTuple):
    """One batch on the device."""

    image: Tensor
    """float [B, 3, S, S]"""
    codes: Tensor
    """int64 [B, P], visual tokens"""
    ids: Tensor
    """int64 [B, T]"""
    padding: Tensor
    """bool [B, T]; all of a row whose text is absent or hidden"""
    patches: Tensor
    """bool [B, P], masked"""
    pieces: Tensor
    """bool [B, T], masked"""
    no_image: Tensor
    """bool [B], absent or hidden"""
    has_image: Tensor
    """bool [B], there is a picture to tell of, hidden or not"""
    words: Tensor
    """bool [B, T], pieces to tell of, hidden or not"""


class Losses(NamedTuple):
    """Means over what each term predicts; zero where that is nothing."""

    mim: Tensor
    mlm: Tensor
    patches: Tensor
    words: Tensor


class Scores(NamedTuple):
    """What a masked pass predicts: logits at masked positions, and CLS."""

    patches: Tensor
    """[masked patches, C]"""
    pieces: Tensor
    """[masked pieces, V]"""
    cls: Tensor
    """[B, D]"""


def predict(network: BEiT3, step: Step, mask_id: int) -> Scores:
    """Run the joint pass over what is left of a batch."""
    shown = torch.where(step.pieces, mask_id, step.ids)  # [B, T]
    vision, text = network(
        step.image, shown, padding=step.padding, patch_mask=step.patches, no_image=step.no_image
    )  # [B, 1+P, D], [B, T, D]
    return Scores(
        _head(network.mim_head, vision[:, 1:][step.patches]), _head(network.mlm_head, text[step.pieces]), vision[:, 0]
    )


def losses(scores: Scores, summary: Summary | None, step: Step) -> Losses:
    """Return the terms of L; without `summary` its two are zero."""
    mim = mean_cross_entropy(scores.patches, step.codes[step.patches])
    mlm = mean_cross_entropy(scores.pieces, step.ids[step.pieces])
    if summary is None:
        return Losses(mim, mlm, torch.zeros_like(mim), torch.zeros_like(mim))
    looks, words = summary(scores.cls)  # [B, P, C], [B, V]
    look = mean_cross_entropy(looks[step.has_image].flatten(0, 1), step.codes[step.has_image].flatten())
    row, place = step.words.nonzero(as_tuple=True)
    word = -words.float().log_softmax(1)[row, step.ids[row, place]].sum() / max(1, len(row))
    return Losses(mim, mlm, look, word)


def mean_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -log softmax(logits)[target], in float32; 0 where there is no target."""
    return F.cross_entropy(logits.float(), target, reduction="sum") / max(1, len(target))


def _head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)
