"""The pre-training loss of BEiT3: masked image and masked language modelling in one pass, and distillation.

Functions below the model measure it on held-out items.

    L = L_MIM + L_MLM + distill * L_distill

L_MIM and L_MLM are cross-entropies over masked positions, which leave CLS, the item's feature, untrained. L_distill is
1 - cosine of a linear map of CLS and the joint vector of frozen encoders (`prepare.read_target`) of the whole item. CLS
comes from a second pass without masks, as in encoding, and is whitened: it varies along few directions, and a linear
map would learn the others late or never.

Each term is a sum over a part of a step, divided by the number of targets in the whole step, so that the parts add up.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary, n rows, W width of the target.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.corpus import (
    MaskedBatch,
    MaskRates,
    PretrainTask,
    make_batch,
    split_batch,
)
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini, centre_halves
from alignrec.pipeline.beit3.network import Streams
from alignrec.pipeline.linalg.projections import FLOOR
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.seeds import seed_for

RECENT = 0.01  # minimum weight of the latest step in the running mean and covariance of CLS
TERMS = ("mim", "mlm", "distill")
NO_MASKING = MaskRates(0, 0, 0, 0)
ENOUGH, MOST_DRAWS = (
    1000,
    32,
)  # minimum targets of each kind, and maximum draws of masks, in the last measurement


class MaskedLogits(NamedTuple):
    """Logits at masked positions, and all outputs of the masked pass."""

    patches: Tensor  # [masked patches, C]
    pieces: Tensor  # [masked pieces, V]
    streams: Streams


class RunningWhitening(nn.Module):
    """Whitens CLS with moving averages of mean and covariance, updated by `update` after each step."""

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

    def read(self, x: Tensor) -> Tensor:
        return centre_halves(x.float(), self.mean)

    forward = read


class PretrainingModel(nn.Module):
    """The network and the head from its summary to the teachers' vector."""

    whitening: RunningWhitening | Centring

    def __init__(self, network: BEiT3OrMini, mask_id: int, taught: int = 0) -> None:
        super().__init__()
        width = network.summary_width
        self.network, self.mask_id = network, mask_id
        self.whitening = Centring(width) if isinstance(network, Mini) else RunningWhitening(width)
        self.teacher = nn.Linear(width, taught) if taught else None

    @torch.no_grad()
    def taught(self) -> Tensor | None:
        """Return the linear map from CLS to the teachers' vector, float32 [D, W]; None without teachers."""
        return None if self.teacher is None else self.whitening.map @ self.teacher.weight.T

    def forward(self, step: MaskedBatch, counts: Tensor) -> Tensor:
        """Return a part's share of each of TERMS, float32 [3]; `counts` are `MaskedBatch.counts` of the whole step."""
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


def predict_masked(network: BEiT3OrMini, step: MaskedBatch, mask_id: int) -> MaskedLogits:
    image, ids, padding, no_image = step.inputs
    ids = torch.where(step.piece_mask, mask_id, ids)  # [B, T]
    streams: Streams = network(
        image, ids, padding=padding, patch_mask=step.patch_mask, no_image=no_image
    )
    assert streams.vision is not None
    assert streams.text is not None
    of_patches = streams.vision[
        :, streams.vision.shape[1] - step.patch_mask.shape[1] :
    ]  # without CLS
    patches = _apply_head(network.mim_head, of_patches[step.patch_mask])
    return MaskedLogits(
        patches, _apply_head(network.mlm_head, streams.text[step.piece_mask]), streams
    )


def teacher_loss(read: Tensor, target: Tensor) -> Tensor:
    """Return the sum of 1 - cosine of two [B, W], except for rows of zeros in `target`."""
    distance = 1 - F.cosine_similarity(read.float(), target, dim=1)
    return (distance * target.any(dim=1)).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of -log softmax(logits)[target], in float32; 0 without targets."""
    return F.cross_entropy(logits.float(), target, reduction="sum")


def _apply_head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)


@torch.no_grad()
def measure_masked(
    network: BEiT3OrMini, task: PretrainTask, draws: int = 1
) -> dict[str, float | None]:
    """Return loss and accuracy on masked tokens of held-out items, with the same masks at every call.

    For `mim` and `mlm` each, None without targets: `_held_out_loss`, mean cross-entropy; `_accuracy`; `_chance`, the
    accuracy of always predicting the most frequent token of train items; `_rare_accuracy`, that on all other tokens.
    Masks are drawn up to `draws` times, until there are ENOUGH targets of each kind.
    """
    rates = task.rates._replace(hidden=0.0)
    # whether each prediction is right, bool [n], the targets [n], and the summed loss
    outcomes: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"mim": [], "mlm": []}
    for draw in range(draws):
        seed = seed_for(task.seed, "held out masks", *([draw] if draw else []))
        for rows in _micro_batches(task, task.corpus.lengths_of_items[task.held_out]):
            step = make_batch(task, task.held_out[rows], rates, seed)
            with autocast(task):
                scores = predict_masked(network, step, task.mask_id)
            for term, logits, target in (
                ("mim", scores.patches, step.codes[step.patch_mask]),
                ("mlm", scores.pieces, step.inputs.ids[step.piece_mask]),
            ):
                outcomes[term].append(
                    (logits.argmax(1) == target, target, cross_entropy(logits, target))
                )
        counts = [sum(len(target) for _, target, _ in parts) for parts in outcomes.values()]
        if all(count >= ENOUGH for count in counts if count):
            break
    figures = {
        term: _summarise_outcomes(parts, task.most_frequent[term])
        for term, parts in outcomes.items()
    }
    return {
        f"{term}_{name}": value
        for term, values in figures.items()
        for name, value in values.items()
    }


def _summarise_outcomes(
    parts: list[tuple[Tensor, Tensor, Tensor]], frequent: int
) -> dict[str, float | None]:
    names = ("held_out_loss", "accuracy", "chance", "rare_accuracy")
    if not sum(len(target) for _, target, _ in parts):
        return dict.fromkeys(names)
    right, target = (
        torch.cat([part[0] for part in parts]).double(),
        torch.cat([part[1] for part in parts]),
    )
    loss = sum(float(part[2]) for part in parts)
    common = (target == frequent).double()
    rare = 1 - common
    of_rare = float((right * rare).sum() / rare.sum().clamp(min=1))
    values = (loss / len(target), float(right.mean()), float(common.mean()), of_rare)
    return {name: round(value, 6) for name, value in zip(names, values, strict=True)}


@torch.no_grad()
def measure_cosine(model: PretrainingModel, task: PretrainTask) -> float | None:
    """Return the mean cosine of the held-out items' predicted and actual teacher vectors; None without teachers."""
    if model.teacher is None or task.target is None:
        return None
    target = torch.from_numpy(task.target[task.held_out]).to(task.device)
    known = target.any(dim=1)
    if not known.any():
        return None
    cls = torch.from_numpy(encode_items(model.network, task, task.held_out)).to(task.device)
    read = model.teacher(model.whitening.read(cls[known]))
    return round(float(F.cosine_similarity(read, target[known], dim=1).mean()), 6)


@torch.no_grad()
def encode_items(network: BEiT3OrMini, task: PretrainTask, items: np.ndarray) -> np.ndarray:
    """Return the summary of each item, unmasked and averaged over all parts of its text: float32 [n, D]."""
    parts, owner, share = task.corpus.all_parts(items)
    out = np.zeros((len(items), network.summary_width), np.float32)
    for rows in _micro_batches(task, task.corpus.lengths[parts]):
        inputs = make_batch(task, items[owner[rows]], NO_MASKING, 0, parts[rows]).inputs
        summaries = network.summary(*inputs).float().cpu().numpy()
        np.add.at(out, owner[rows], share[rows, None] * summaries)
    return out


def autocast(task: PretrainTask) -> torch.autocast:
    return torch.autocast(
        task.device.type, torch.bfloat16, enabled=task.params.precision == "bfloat16"
    )


def _micro_batches(task: PretrainTask, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions of inputs per forward pass, given their lengths in tokens, int64 [n]."""
    size = max(1, task.params.batch_size // task.params.accumulate)
    order = np.argsort(lengths, kind="stable")  # shortest first, which saves padding
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield from split_batch(places, lengths[places])
