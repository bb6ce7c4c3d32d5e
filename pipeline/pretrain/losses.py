"""The pre-training loss of BEiT3: masked image and masked language modelling in one pass, and distillation.

    L = L_MIM + L_MLM + distill * L_distill

L_MIM and L_MLM are cross-entropies over masked positions, which leave CLS, the item's feature, untrained. L_distill is
1 - cosine of a linear map of CLS and the joint vector of frozen encoders (`prepare.read_target`) of the whole item. CLS
is of a second pass without masks, as in encoding, and whitened: it varies along few directions, and a linear map would
learn the others late or never.

Each term is a sum over a part of a step, divided by the number of targets in the whole step, so that the parts add up.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary, n rows, W width of the target.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.mini import Mini, Network, centre_halves
from alignrec.pipeline.beit3.network import Streams
from alignrec.pipeline.harness import process
from alignrec.pipeline.ops.linalg import FLOOR

RECENT = 0.01  # least weight of the latest step in the running mean and covariance of CLS
TERMS = ("mim", "mlm", "distill")


class NetworkInputs(NamedTuple):
    """Inputs of B items, on the device."""

    image: Tensor  # float [B, 3, S, S]; of `mini` [B, sum of its image tokens' widths]
    ids: Tensor  # int64 [B, T]
    padding: Tensor  # bool [B, T]; True throughout if the text is absent or hidden
    no_image: Tensor  # bool [B], absent or hidden


class Step(NamedTuple):
    """A batch, or a part of one, on the device."""

    inputs: NetworkInputs
    codes: Tensor  # int64 [B, P], visual tokens
    patch_mask: Tensor  # bool [B, P], masked patches
    piece_mask: Tensor  # bool [B, T], masked pieces
    teacher: Tensor | None = None  # float [B, W], of length 1, or zero if unknown

    def counts(self) -> Tensor:
        """Return the number of targets of each of TERMS, int64 [3]."""
        patches = self.patch_mask.sum()
        taught = torch.zeros_like(patches) if self.teacher is None else self.teacher.any(dim=1).sum()
        return torch.stack([patches, self.piece_mask.sum(), taught])


class Scores(NamedTuple):
    """Logits at masked positions, and all outputs of the masked pass."""

    patches: Tensor  # [masked patches, C]
    pieces: Tensor  # [masked pieces, V]
    streams: Streams


class RunningWhitening(nn.Module):
    """Whitens CLS with moving averages of mean and covariance, which `update` renews after each step."""

    mean: Tensor  # float32 [D]
    map: Tensor  # float32 [D, D]
    covariance: Tensor  # float64 [D, D]
    steps: Tensor  # float64 []

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("map", torch.eye(width))
        self.register_buffer("covariance", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self._seen: list[Tensor] = []

    def forward(self, cls: Tensor) -> Tensor:
        self._seen.append(cls.detach().float())
        return self.read(cls)

    def read(self, cls: Tensor) -> Tensor:
        return (cls.float() - self.mean) @ self.map

    @torch.no_grad()
    def update(self) -> None:
        cls = torch.cat(self._seen).double()  # [n, D]
        self._seen.clear()
        count, total = process.all_reduce(cls.new_tensor(len(cls))), process.all_reduce(cls.sum(0))
        centred = cls - total / count
        covariance = process.all_reduce(centred.T @ centred) / count
        self.steps += 1
        share = max(RECENT, 1 / float(self.steps))
        shift = total / count - self.mean
        self.covariance.lerp_(covariance + (1 - share) * torch.outer(shift, shift), share)
        self.mean += share * shift.to(self.mean)
        variance, directions = torch.linalg.eigh(self.covariance)
        variance = variance.clamp(min=0) + FLOOR * variance.mean()
        scale = 1 / variance.sqrt() if float(variance.mean()) > 0 else torch.ones_like(variance)
        self.map.copy_((directions * scale) @ directions.T)


class Centring(nn.Module):
    """Subtracts a constant mean from the summaries of `mini`."""

    mean: Tensor  # float32 [D]
    map: Tensor  # float32 [D, D], the identity

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("map", torch.eye(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x)

    def read(self, x: Tensor) -> Tensor:
        return centre_halves(x.float(), self.mean)

    def update(self) -> None: ...


class PretrainingModel(nn.Module):
    """The network and the head from its summary to the teachers' vector."""

    whitening: RunningWhitening | Centring

    def __init__(self, network: Network, mask_id: int, taught: int = 0) -> None:
        super().__init__()
        width = network.summary_width
        self.network, self.mask_id = network, mask_id
        self.whitening = Centring(width) if isinstance(network, Mini) else RunningWhitening(width)
        self.teacher = nn.Linear(width, taught) if taught else None

    @torch.no_grad()
    def taught(self) -> Tensor | None:
        """Return the linear map from CLS to the teachers' vector, float32 [D, W]; None without teachers."""
        return None if self.teacher is None else self.whitening.map @ self.teacher.weight.T

    def forward(self, step: Step, counts: Tensor) -> Tensor:
        """Return a part's share of each of TERMS, float32 [3]; `counts` are `Step.counts` of the whole step."""
        n = counts.clamp(min=1)
        scores = predict_masked(self.network, step, self.mask_id)
        mim = cross_entropy(scores.patches, step.codes[step.patch_mask]) / n[0]
        mlm = cross_entropy(scores.pieces, step.inputs.ids[step.piece_mask]) / n[1]
        distill = torch.zeros_like(mim)
        if self.teacher is not None and step.teacher is not None:
            inputs = step.inputs
            if isinstance(self.network, Mini):
                summary = self.network.pool_outputs(scores.streams, inputs.padding, inputs.no_image)
            else:
                summary = self.network.summary(*inputs)
            distill = teacher_loss(self.teacher(self.whitening(summary)), step.teacher) / n[2]
        return torch.stack([mim, mlm, distill])


def predict_masked(network: Network, step: Step, mask_id: int) -> Scores:
    image, ids, padding, no_image = step.inputs
    ids = torch.where(step.piece_mask, mask_id, ids)  # [B, T]
    streams: Streams = network(image, ids, padding=padding, patch_mask=step.patch_mask, no_image=no_image)
    assert streams.vision is not None
    assert streams.text is not None
    patches = _apply_head(network.mim_head, network.image_outputs(streams.vision)[step.patch_mask])
    return Scores(patches, _apply_head(network.mlm_head, streams.text[step.piece_mask]), streams)


def teacher_loss(read: Tensor, target: Tensor) -> Tensor:
    """Return the sum of 1 - cosine of two [B, W], except for rows of zeros in `target`."""
    distance = 1 - F.cosine_similarity(read.float(), target, dim=1)
    return (distance * target.any(dim=1)).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of -log softmax(logits)[target], in float32; 0 without targets."""
    return F.cross_entropy(logits.float(), target, reduction="sum")


def _apply_head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)
