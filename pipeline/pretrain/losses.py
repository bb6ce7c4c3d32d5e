"""What BEiT3 learns from: masked image and masked language modelling in one pass, and a summary held by CLS.

    L = L_MIM + L_MLM + summary * (L_patches + L_words) + content * L_content + itc * L_ITC + collaborative * L_pairs

L_MIM and L_MLM are cross-entropies over masked positions only. They leave CLS, which is the item's feature, untrained.
So CLS alone must also tell what the item is: which visual token is at each place, which pieces its text has, the
masked ones included. Without that, a network trained from scratch on a small dataset had worse features than the same
network untrained. And L_content: it must name its item among those at hand by their contents, a bag of pieces in which
rare ones count more, and a bag of visual tokens. What all items have helps nothing there, so CLS comes to hold what
tells items apart.
The last two are off by default: L_ITC brings an item's picture alone and its text alone together, L_pairs two items
that many users have in common (pipeline/pretrain/partners.py). L_content, L_ITC and L_pairs are cross-entropies of the
right one among those at hand.

A step may be cut into parts that are computed one after another, or by several processes. Each term is a sum over a
part, divided by the number of its targets in the whole step: the parts add up to what one process would find at once.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary, n rows at hand, M partners of an item.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline import parallel
from pipeline.beit3.network import BEiT3
from pipeline.beit3.tokenizer import PAD
from pipeline.config import Pretrain

TERMS = ("mim", "mlm", "summary", "content", "itc", "collaborative")


class Shown(NamedTuple):
    """Items on the device."""

    image: Tensor
    """float [B, 3, S, S]"""
    ids: Tensor
    """int64 [B, T]"""
    padding: Tensor
    """bool [B, T]; all of a row whose text is absent or hidden"""
    no_image: Tensor
    """bool [B], absent or hidden"""


class Company(NamedTuple):
    """For some rows of a batch an item that is to come near."""

    row: Tensor
    """int64 [n], of the batch"""
    item: Tensor
    """int64 [n], the row's item"""
    partner: Tensor
    """int64 [n]"""
    kin: Tensor
    """int64 [n, M], all partners of the row's item, -1 where there are fewer: none of them is pushed away"""
    shown: Shown
    """[n], the partners, nothing masked"""


class Step(NamedTuple):
    """One batch on the device, or a part of one."""

    shown: Shown
    codes: Tensor
    """int64 [B, P], visual tokens"""
    patches: Tensor
    """bool [B, P], masked"""
    pieces: Tensor
    """bool [B, T], masked"""
    has_image: Tensor
    """bool [B], there is a picture to tell of, hidden or not"""
    words: Tensor
    """bool [B, T], pieces to tell of, hidden or not"""
    company: Company | None = None

    @property
    def pairs(self) -> Tensor:
        """bool [B], items with picture and text."""
        return self.has_image & self.words.any(dim=1)

    def counts(self) -> Tensor:
        """Return what the terms are means over: masked patches, masked pieces, patches, pieces, items, pairs, partners.

        int64 [7].
        """
        told = self.has_image.sum() * self.codes.shape[1]
        items, near = (told.new_tensor(len(x)) for x in (self.codes, () if self.company is None else self.company.row))
        return torch.stack(
            [self.patches.sum(), self.pieces.sum(), told, self.words.sum(), items, self.pairs.sum(), near]
        )


class Scores(NamedTuple):
    """What a masked pass predicts: logits at masked positions, and CLS."""

    patches: Tensor
    """[masked patches, C]"""
    pieces: Tensor
    """[masked pieces, V]"""
    cls: Tensor
    """[B, D]"""


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


class Content(nn.Module):
    """Items as bags of what they hold, and CLS turned to where the bags are."""

    rarity: Tensor
    """float [V]"""

    def __init__(self, width: int, codes: int, rarity: Tensor) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.pieces = nn.Embedding(len(rarity), width)
        self.codes = nn.Embedding(max(1, codes), width)
        self.register_buffer("rarity", rarity, persistent=False)

    def forward(self, step: Step) -> Tensor:
        """Return the mean of the bag of pieces and the bag of visual tokens of each item, [B, D]."""
        weight = step.words * self.rarity[step.shown.ids]  # [B, T]
        pieces = (self.pieces(step.shown.ids) * weight[:, :, None]).sum(dim=1)
        codes = self.codes(step.codes).mean(dim=1) * step.has_image[:, None]
        return (F.normalize(pieces, dim=1) + F.normalize(codes, dim=1)) / 2


class Learner(nn.Module):
    """The network with all that its loss needs beside it; parts of terms that are off are None."""

    def __init__(self, network: BEiT3, params: Pretrain, mask_id: int, rarity: Tensor) -> None:
        """Take the network in; `rarity` float [V] is the weight of each piece in a bag."""
        super().__init__()
        c = network.config
        self.network, self.mask_id, self.temperature = network, mask_id, params.temperature
        self.summary = Summary(c.width, c.patches, c.codes, c.vocab) if params.summary else None
        self.content = Content(c.width, c.codes, rarity) if params.content else None
        self.sides = nn.Linear(c.width, c.width, bias=False) if params.itc else None  # one map, so that CLS comes near
        self.taste = nn.Linear(c.width, c.width, bias=False) if params.collaborative else None

    def forward(self, step: Step, counts: Tensor) -> Tensor:
        """Return this part's share of each of TERMS, float32 [6]; zero where there is nothing to predict.

        Args:
            step: a part of a batch.
            counts: see `Step.counts`, of the whole batch.
        """
        n = counts.clamp(min=1)
        scores = predict(self.network, step, self.mask_id)
        mim = cross_entropy(scores.patches, step.codes[step.patches]) / n[0]
        mlm = cross_entropy(scores.pieces, step.shown.ids[step.pieces]) / n[1]
        nothing = torch.zeros_like(mim)
        summary, content, itc, near = nothing, nothing, nothing, nothing
        if self.summary is not None:
            look, word = told(self.summary, scores.cls, step)
            summary = look / n[2] + word / n[3]
        if self.content is not None:
            content = contrast(self.content.read(scores.cls), self.content(step), self.temperature) / n[4]
        if self.sides is not None:
            image, text = alone(self.network, step.shown, step.pairs)
            itc = contrast(self.sides(image), self.sides(text), self.temperature) / n[5]
        if self.taste is not None and step.company is not None:
            company = step.company
            cls = whole(self.network, company.shown)
            near = attraction(self.taste(scores.cls[company.row]), self.taste(cls), company, self.temperature) / n[6]
        return torch.stack([mim, mlm, summary, content, itc, near])


def weights(params: Pretrain) -> tuple[float, ...]:
    """Return the weight of each of TERMS."""
    return 1.0, 1.0, params.summary, params.content, params.itc, params.collaborative


def predict(network: BEiT3, step: Step, mask_id: int) -> Scores:
    """Run the joint pass over what is left of a batch."""
    ids = torch.where(step.pieces, mask_id, step.shown.ids)  # [B, T]
    vision, text = network(
        step.shown.image, ids, padding=step.shown.padding, patch_mask=step.patches, no_image=step.shown.no_image
    )  # [B, 1+P, D], [B, T, D]
    return Scores(
        _head(network.mim_head, vision[:, 1:][step.patches]), _head(network.mlm_head, text[step.pieces]), vision[:, 0]
    )


def whole(network: BEiT3, shown: Shown) -> Tensor:
    """Return CLS of the pass over all that each item has, nothing masked: [B, D]."""
    out = network(shown.image, shown.ids, padding=shown.padding, no_image=shown.no_image, first_only=True)
    return out.vision[:, 0]


def alone(network: BEiT3, shown: Shown, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return CLS of the picture alone and of the text alone, nothing masked: two of [n, D].

    Args:
        network: BEiT3.
        shown: [B].
        rows: bool [B], n of them True: items that have both.
    """
    image = network(shown.image[rows], None, first_only=True).vision[:, 0]
    ids = shown.ids[rows]
    text = network(None, ids, padding=ids == PAD, first_only=True).vision[:, 0]
    return image, text


def told(summary: Summary, cls: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropies of what CLS alone says of the patches and of the pieces of its item."""
    looks, words = summary(cls)  # [B, P, C], [B, V]
    look = cross_entropy(looks[step.has_image].flatten(0, 1), step.codes[step.has_image].flatten())
    row, place = step.words.nonzero(as_tuple=True)
    return look, -words.float().log_softmax(1)[row, step.shown.ids[row, place]].sum()


def contrast(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Return the summed InfoNCE between the rows of x and y, the mean of both directions.

    Args:
        x: [n, D]; row i belongs to row i of `y`, and to none else of any process.
        y: [n, D].
        temperature: of the softmax over cosines.
    """
    x, y = F.normalize(x.float(), dim=1), F.normalize(y.float(), dim=1)
    (xs, start), (ys, _) = parallel.gathered(x), parallel.gathered(y)
    own = start + torch.arange(len(x), device=x.device)
    forth, back = cross_entropy(x @ ys.T / temperature, own), cross_entropy(y @ xs.T / temperature, own)
    return (forth + back) / 2


def attraction(item: Tensor, partner: Tensor, company: Company, temperature: float) -> Tensor:
    """Return the summed InfoNCE of items and partners; an item's other partners and itself are not pushed away.

    Args:
        item: [n, D].
        partner: [n, D]; row i belongs to row i of `item`.
        company: who they are.
        temperature: of the softmax over cosines.
    """
    item, partner = F.normalize(item.float(), dim=1), F.normalize(partner.float(), dim=1)
    (partners, start), (ids, _) = parallel.gathered(partner), parallel.gathered(company.partner)
    own = start + torch.arange(len(item), device=item.device)
    kin = (company.kin[:, :, None] == ids).any(dim=1) | (company.item[:, None] == ids)  # [n, all]
    kin = kin.scatter(1, own[:, None], False)
    return cross_entropy((item @ partners.T / temperature).masked_fill(kin, -torch.inf), own)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of -log softmax(logits)[target], in float32; 0 where there is no target."""
    return F.cross_entropy(logits.float(), target, reduction="sum")


def _head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)
