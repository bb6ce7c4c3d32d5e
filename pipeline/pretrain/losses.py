"""The pre-training loss of BEiT3: masked image and masked language modelling in one pass, and terms that train CLS.

    L = L_MIM + L_MLM + summary * (L_patches + L_words) + content * L_content + itc * L_ITC
      + collaborative * L_pairs + distill * L_teachers

L_MIM and L_MLM are cross-entropies over masked positions only. They leave CLS, the item's feature, untrained: on a
small dataset its features were worse than those of an untrained network. So further terms train CLS:

- summary, a readout loss: CLS alone predicts the visual token of every patch and the pieces of the text, masked or not;
- content: InfoNCE of CLS and the item's content, a bag of pieces weighted by IDF and a bag of visual tokens;
- itc, off by default: InfoNCE of an item's image alone and its text alone;
- collaborative, off by default: InfoNCE of two items that many users have in common (pipeline/pretrain/partners.py);
- distill, off by default: 1 - cosine of a linear map of CLS and each frozen teacher's vector
  (pipeline/pretrain/distillation.py), where what the teacher reads is there and not hidden.

Summary, content and distill read CLS of the masked pass, or with `cls_pass: whole` of one more pass with nothing
masked, as it is when features are made. With `cls_read: whitened` they read it whitened, as the released feature is:
CLS varies along a few directions, and what lies along the others would reach a linear map late, or never.

Each InfoNCE has the other items of the batch as negatives. A step may be cut into parts that are computed one after
another, or by several processes. Each term is a sum over a part, divided by the number of its targets in the whole
step: the parts add up to what one process would compute at once.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary, n rows, M partners of an item, W width
of a teacher's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline import parallel
from pipeline.beit3.network import BEiT3
from pipeline.beit3.tokenizer import PAD
from pipeline.ops.whitening import FLOOR
from pipeline.pretrain.params import Pretrain

RECENT = 0.01
"""share of the latest step in the running mean and covariance of CLS, once a hundred steps have been taken"""
TERMS = ("mim", "mlm", "summary", "content", "itc", "collaborative", "distill")


class NetworkInputs(NamedTuple):
    """What the network reads of B items, on the device."""

    image: Tensor
    """float [B, 3, S, S]"""
    ids: Tensor
    """int64 [B, T]"""
    padding: Tensor
    """bool [B, T]; all of a row whose text is absent or hidden"""
    no_image: Tensor
    """bool [B], absent or hidden"""


class Positives(NamedTuple):
    """A positive of the collaborative term for n rows of a batch."""

    row: Tensor
    """int64 [n], row of the batch"""
    item: Tensor
    """int64 [n], the row's item"""
    partner: Tensor
    """int64 [n], the item's positive"""
    partners: Tensor
    """int64 [n, M], all partners of the item, -1 where there are fewer; none of them is a negative"""
    inputs: NetworkInputs
    """of the n positives, nothing masked"""


class Step(NamedTuple):
    """One batch on the device, or a part of one."""

    inputs: NetworkInputs
    codes: Tensor
    """int64 [B, P], visual tokens"""
    patch_mask: Tensor
    """bool [B, P], masked patches"""
    piece_mask: Tensor
    """bool [B, T], masked pieces"""
    has_image: Tensor
    """bool [B], the item has an image, hidden or not"""
    has_piece: Tensor
    """bool [B, T], positions of pieces, hidden or not; special ids are none"""
    positives: Positives | None = None
    teachers: tuple[Tensor, ...] = ()
    """each float [B, W], of length 1; zeros where the item lacks, or hides, what the teacher reads"""

    @property
    def pairs(self) -> Tensor:
        """bool [B], items with image and text."""
        return self.has_image & self.has_piece.any(dim=1)

    def counts(self) -> Tensor:
        """Return the number of targets of each term, int64 [7 + teachers].

        In order: masked patches, masked pieces, patches, pieces, items, pairs, positives, items of each teacher.
        """
        patches = self.has_image.sum() * self.codes.shape[1]
        items = patches.new_tensor(len(self.codes))
        positives = patches.new_tensor(0 if self.positives is None else len(self.positives.row))
        masked = self.patch_mask.sum(), self.piece_mask.sum()
        taught = [_taught(target).sum() for target in self.teachers]
        return torch.stack([*masked, patches, self.has_piece.sum(), items, self.pairs.sum(), positives, *taught])


class Scores(NamedTuple):
    """Output of the masked pass: logits at masked positions, and CLS."""

    patches: Tensor
    """[masked patches, C]"""
    pieces: Tensor
    """[masked pieces, V]"""
    cls: Tensor
    """[B, D]"""


class ReadoutHead(nn.Module):
    """Predicts an item's content from CLS: visual tokens by position, text pieces without order."""

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
        hidden = self.read(cls)  # [B, D]
        return self.codes(F.gelu(self.look(hidden[:, None] + self.place))), self.words(hidden)


class ContentHead(nn.Module):
    """Embeds an item's bags of pieces and visual tokens, and maps CLS into the same space."""

    idf: Tensor
    """float [V]"""

    def __init__(self, width: int, codes: int, idf: Tensor) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.pieces = nn.Embedding(len(idf), width)
        self.codes = nn.Embedding(max(1, codes), width)
        self.register_buffer("idf", idf, persistent=False)

    def forward(self, step: Step) -> Tensor:
        """Return the mean of the bag of pieces and the bag of visual tokens of each item, [B, D]."""
        weight = step.has_piece * self.idf[step.inputs.ids]  # [B, T]
        pieces = (self.pieces(step.inputs.ids) * weight[:, :, None]).sum(dim=1)
        codes = self.codes(step.codes).mean(dim=1) * step.has_image[:, None]
        return (F.normalize(pieces, dim=1) + F.normalize(codes, dim=1)) / 2


class RunningWhitening(nn.Module):
    """Whitens CLS with the mean and covariance of past steps, a moving average; no gradient flows through them.

    The map stays the same throughout a step, so that the parts of a step add up. Then `update` renews it.
    """

    mean: Tensor
    """float32 [D]"""
    map: Tensor
    """float32 [D, D]"""
    covariance: Tensor
    """float64 [D, D]"""
    steps: Tensor
    """float64 [], those that the averages are of"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("map", torch.eye(width))
        self.register_buffer("covariance", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self._seen: list[Tensor] = []

    def forward(self, cls: Tensor) -> Tensor:
        """[B, D] -> float32 [B, D]."""
        self._seen.append(cls.detach().float())
        return self.read(cls)

    def read(self, cls: Tensor) -> Tensor:
        """Do as `forward`, and leave the averages alone."""
        return (cls.float() - self.mean) @ self.map

    @torch.no_grad()
    def update(self) -> None:
        """Take the CLS vectors of the step, of all its parts and processes, into the averages."""
        cls = torch.cat(self._seen).double()  # [n, D]
        self._seen.clear()
        count, total = parallel.all_reduce(cls.new_tensor(len(cls))), parallel.all_reduce(cls.sum(0))
        centred = cls - total / count
        covariance = parallel.all_reduce(centred.T @ centred) / count
        self.steps += 1
        share = max(RECENT, 1 / float(self.steps))
        shift = total / count - self.mean
        self.covariance.lerp_(covariance + (1 - share) * torch.outer(shift, shift), share)
        self.mean += share * shift.to(self.mean)
        self.map.copy_(inverse_root(self.covariance))


class PretrainingModel(nn.Module):
    """The network and the heads of its loss; the heads of terms that are off are None."""

    def __init__(
        self, network: BEiT3, params: Pretrain, mask_id: int, idf: Tensor, teachers: Sequence[int] = ()
    ) -> None:
        """Add heads to a network.

        Args:
            network: trained in place.
            params: weights of the terms, temperature.
            mask_id: id of <mask>.
            idf: float [V], weight of each piece in a bag.
            teachers: W of each.
        """
        super().__init__()
        c = network.config
        self.network, self.mask_id, self.temperature = network, mask_id, params.temperature
        self.whole = params.cls_pass == "whole"
        self.whitening = RunningWhitening(c.width) if params.cls_read == "whitened" else None
        self.summary = ReadoutHead(c.width, c.patches, c.codes, c.vocab) if params.summary else None
        self.content = ContentHead(c.width, c.codes, idf) if params.content else None
        # one projection for image and text, so that their CLS vectors come to agree too
        self.itc_projection = nn.Linear(c.width, c.width, bias=False) if params.itc else None
        self.collaborative_projection = nn.Linear(c.width, c.width, bias=False) if params.collaborative else None
        self.teachers = nn.ModuleList(nn.Linear(c.width, width) for width in teachers)

    @torch.no_grad()
    def taught(self) -> Tensor:
        """Return the linear map, biases aside, that reads all teachers' vectors from CLS: float32 [D, sum of W]."""
        heads = torch.cat([cast(nn.Linear, head).weight for head in self.teachers]).T.contiguous()
        return heads if self.whitening is None else self.whitening.map @ heads

    def forward(self, step: Step, counts: Tensor) -> Tensor:
        """Return this part's share of each of TERMS, float32 [7]; zero where there is nothing to predict.

        Args:
            step: a part of a batch.
            counts: see `Step.counts`, of the whole batch.
        """
        n = counts.clamp(min=1)
        scores = predict(self.network, step, self.mask_id)
        mim = cross_entropy(scores.patches, step.codes[step.patch_mask]) / n[0]
        mlm = cross_entropy(scores.pieces, step.inputs.ids[step.piece_mask]) / n[1]
        zero = torch.zeros_like(mim)
        cls = joint_cls(self.network, step.inputs) if self.whole else scores.cls
        cls = cls if self.whitening is None else self.whitening(cls)
        summary, content, itc, collaborative, distill = zero, zero, zero, zero, zero
        if self.summary is not None:
            patches, words = readout_loss(self.summary, cls, step)
            summary = patches / n[2] + words / n[3]
        if self.content is not None:
            content = info_nce(self.content.read(cls), self.content(step), self.temperature) / n[4]
        if (project := self.itc_projection) is not None:
            image, text = unimodal_cls(self.network, step.inputs, step.pairs)
            itc = info_nce(project(image), project(text), self.temperature) / n[5]
        if (project := self.collaborative_projection) is not None and (positives := step.positives) is not None:
            partner = project(joint_cls(self.network, positives.inputs))
            item = project(scores.cls[positives.row])
            collaborative = collaborative_loss(item, partner, positives, self.temperature) / n[6]
        for head, target, count in zip(self.teachers, step.teachers, n[7:], strict=True):
            distill = distill + teacher_loss(head(cls), target) / count
        return torch.stack([mim, mlm, summary, content, itc, collaborative, distill])


def weights(params: Pretrain) -> tuple[float, ...]:
    """Return the weight of each of TERMS."""
    return 1.0, 1.0, params.summary, params.content, params.itc, params.collaborative, params.distill


def predict(network: BEiT3, step: Step, mask_id: int) -> Scores:
    """Run the joint pass over a masked batch."""
    inputs = step.inputs
    ids = torch.where(step.piece_mask, mask_id, inputs.ids)  # [B, T]
    vision, text = network(
        inputs.image, ids, padding=inputs.padding, patch_mask=step.patch_mask, no_image=inputs.no_image
    )  # [B, 1+P, D], [B, T, D]
    patches = _head(network.mim_head, vision[:, 1:][step.patch_mask])
    return Scores(patches, _head(network.mlm_head, text[step.piece_mask]), vision[:, 0])


def joint_cls(network: BEiT3, inputs: NetworkInputs) -> Tensor:
    """Return CLS of the pass over image and text, nothing masked but what is hidden: [B, D]."""
    out = network(inputs.image, inputs.ids, padding=inputs.padding, no_image=inputs.no_image, first_only=True)
    return out.vision[:, 0]


def unimodal_cls(network: BEiT3, inputs: NetworkInputs, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return CLS of the image alone and of the text alone, nothing masked: two of [n, D].

    Args:
        network: BEiT3.
        inputs: of B items.
        rows: bool [B], n of them True: items that have both.
    """
    image = network(inputs.image[rows], None, first_only=True).vision[:, 0]
    ids = inputs.ids[rows]
    text = network(None, ids, padding=ids == PAD, first_only=True).vision[:, 0]
    return image, text


def readout_loss(head: ReadoutHead, cls: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropies of an item's patches and of its pieces, predicted from CLS [B, D] alone."""
    codes, words = head(cls)  # [B, P, C], [B, V]
    patches = cross_entropy(codes[step.has_image].flatten(0, 1), step.codes[step.has_image].flatten())
    row, place = step.has_piece.nonzero(as_tuple=True)
    return patches, -words.float().log_softmax(1)[row, step.inputs.ids[row, place]].sum()


def teacher_loss(read: Tensor, target: Tensor) -> Tensor:
    """Return the summed 1 - cosine of what is read from CLS and a teacher's vectors, both [B, W]; rows of zeros: 0."""
    distance = 1 - F.cosine_similarity(read.float(), target, dim=1)
    return (distance * _taught(target)).sum()


def inverse_root(covariance: Tensor) -> Tensor:
    """Return the symmetric map that whitens vectors of this covariance, [D, D]; see `whitening.fit`."""
    variance, directions = torch.linalg.eigh(covariance)
    variance = variance.clamp(min=0) + FLOOR * variance.mean()
    scale = 1 / variance.sqrt() if float(variance.mean()) > 0 else torch.ones_like(variance)
    return (directions * scale) @ directions.T


def info_nce(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Return the summed InfoNCE between the rows of x and y, the mean of both directions.

    Args:
        x: [n, D]; the positive of row i is row i of `y`, its negatives are all other rows of all processes.
        y: [n, D].
        temperature: of the softmax over cosines.
    """
    x, y = F.normalize(x.float(), dim=1), F.normalize(y.float(), dim=1)
    (xs, start), (ys, _) = parallel.all_gather(x), parallel.all_gather(y)
    own = start + torch.arange(len(x), device=x.device)
    return (cross_entropy(x @ ys.T / temperature, own) + cross_entropy(y @ xs.T / temperature, own)) / 2


def collaborative_loss(item: Tensor, partner: Tensor, positives: Positives, temperature: float) -> Tensor:
    """Return the summed InfoNCE of items and partners; the item itself and its other partners are no negatives.

    Args:
        item: [n, D].
        partner: [n, D]; row i is the positive of row i of `item`.
        positives: the numbers of the items.
        temperature: of the softmax over cosines.
    """
    item, partner = F.normalize(item.float(), dim=1), F.normalize(partner.float(), dim=1)
    (partners, start), (ids, _) = parallel.all_gather(partner), parallel.all_gather(positives.partner)
    own = start + torch.arange(len(item), device=item.device)
    positive_mask = (positives.partners[:, :, None] == ids).any(dim=1) | (positives.item[:, None] == ids)  # [n, all]
    ignored = positive_mask.scatter(1, own[:, None], False)  # all but the row's own positive
    return cross_entropy((item @ partners.T / temperature).masked_fill(ignored, -torch.inf), own)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of -log softmax(logits)[target], in float32; 0 where there is no target."""
    return F.cross_entropy(logits.float(), target, reduction="sum")


def _head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)


def _taught(target: Tensor) -> Tensor:
    """Return whether a row has a target, bool [B]."""
    return target.any(dim=1)
