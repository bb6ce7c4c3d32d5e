"""The pre-training loss of BEiT3: masked modelling of images and text, and distillation.

Functions below the model measure it on held-out items.

    L = L_MIM + L_MLM + distill * L_distill

L_MIM and L_MLM are cross-entropies over masked positions, which leave CLS, the item's feature,
untrained. L_distill is 1 - cosine of a linear map of CLS and the joint vector of frozen encoders
(`prepare.read_target`) of the whole item. CLS comes from a second pass without masks, as in
encoding, and is whitened: it varies along few directions, and a linear map would learn the others
late or never.

Each term is a sum over a part of a step, divided by the number of targets in the whole step, so
that the parts add up.

Letters: B batch, P patches, T text ids, D width, C codes, V vocabulary, n rows, W width of the
target.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.corpus import MaskedBatch, PretrainTask, make_batch, split_batch
from alignrec.pipeline.beit3.masks import MaskRates
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.network import Streams
from alignrec.pipeline.beit3.summaries import centre_halves
from alignrec.pipeline.linalg.projections import FLOOR
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.seeds import seed_for

TERMS = ("mim", "mlm", "distill")
NO_MASKING = MaskRates(0, 0, 0, 0)

MIN_NEWEST_WEIGHT = 0.01  # of the latest step in the running mean and covariance of CLS

# of the last measurement
MIN_TARGETS = 1000  # of each kind
MAX_DRAWS = 32  # of masks


class MaskedLogits(NamedTuple):
    """Logits at masked positions, and all outputs of the masked pass."""

    patches: Tensor  # [masked patches, C]
    pieces: Tensor  # [masked pieces, V]
    streams: Streams


class RunningWhitening(nn.Module):
    """Whitens CLS with moving averages of mean and covariance, updated after each step."""

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
        self._of_step: list[Tensor] = []  # CLS of each part of the current step

    def forward(self, cls: Tensor) -> Tensor:
        self._of_step.append(cls.detach().float())
        return self.read(cls)

    def read(self, cls: Tensor) -> Tensor:
        return (cls.float() - self.mean) @ self.map

    @torch.no_grad()
    def update(self) -> None:
        cls = torch.cat(self._of_step).double()  # [n, D]
        self._of_step.clear()

        count = process.all_reduce(cls.new_tensor(len(cls)))
        mean = process.all_reduce(cls.sum(0)) / count
        centred = cls - mean
        covariance = process.all_reduce(centred.T @ centred) / count

        self.steps += 1
        weight = max(MIN_NEWEST_WEIGHT, 1 / float(self.steps))
        shift = mean - self.mean
        between = (1 - weight) * torch.outer(shift, shift)
        self.covariance.lerp_(covariance + between, weight)
        self.mean += weight * shift.to(self.mean)

        variance, directions = torch.linalg.eigh(self.covariance)
        variance = variance.clamp(min=0) + FLOOR * variance.mean()
        scale = torch.ones_like(variance)
        if float(variance.mean()) > 0:
            scale = 1 / variance.sqrt()
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

    def __init__(self, network: BEiT3OrMini, mask_id: int, taught_width: int = 0) -> None:
        super().__init__()
        width = network.summary_width
        self.network = network
        self.mask_id = mask_id
        self.whitening = Centring(width) if isinstance(network, Mini) else RunningWhitening(width)
        self.teacher = nn.Linear(width, taught_width) if taught_width else None

    @torch.no_grad()
    def taught(self) -> Tensor | None:
        """Return the linear map from CLS to the teachers' vector, float32 [D, W], if any."""
        return None if self.teacher is None else self.whitening.map @ self.teacher.weight.T

    def forward(self, batch: MaskedBatch, counts: Tensor) -> Tensor:
        """Return a part's share of each of TERMS, float32 [3]; `counts` are the whole step's."""
        targets = counts.clamp(min=1)
        logits = predict_masked(self.network, batch, self.mask_id)
        mim = cross_entropy(logits.patches, batch.codes[batch.patch_mask]) / targets[0]
        mlm = cross_entropy(logits.pieces, batch.inputs.ids[batch.piece_mask]) / targets[1]

        distill = torch.zeros_like(mim)
        if self.teacher is not None and batch.teacher is not None:
            summary = self.whitening(self._summarise(batch, logits.streams))
            distill = teacher_loss(self.teacher(summary), batch.teacher) / targets[2]
        return torch.stack([mim, mlm, distill])

    def _summarise(self, batch: MaskedBatch, streams: Streams) -> Tensor:
        """Return the summary, of BEiT3 from a second pass without masks."""
        inputs = batch.inputs
        if isinstance(self.network, Mini):
            return self.network.pool_outputs(streams, inputs.padding, inputs.no_image)
        return self.network.summary(*inputs)


def predict_masked(network: BEiT3OrMini, batch: MaskedBatch, mask_id: int) -> MaskedLogits:
    image, ids, padding, no_image = batch.inputs
    streams: Streams = network(
        image,
        torch.where(batch.piece_mask, mask_id, ids),  # [B, T]
        padding=padding,
        patch_mask=batch.patch_mask,
        no_image=no_image,
    )
    assert streams.vision is not None
    assert streams.text is not None

    before_patches = streams.vision.shape[1] - batch.patch_mask.shape[1]  # CLS
    patches = streams.vision[:, before_patches:][batch.patch_mask]
    pieces = streams.text[batch.piece_mask]
    return MaskedLogits(
        _apply_head(network.mim_head, patches), _apply_head(network.mlm_head, pieces), streams
    )


def _apply_head(head: nn.Module | None, x: Tensor) -> Tensor:
    return x[:, :1] if head is None else head(x)


def teacher_loss(read: Tensor, target: Tensor) -> Tensor:
    """Return the sum of 1 - cosine of two [B, W], except for rows of zeros in `target`."""
    distance = 1 - F.cosine_similarity(read.float(), target, dim=1)
    return (distance * target.any(dim=1)).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of -log softmax(logits)[target], in float32; 0 without targets."""
    return F.cross_entropy(logits.float(), target, reduction="sum")


class MaskedOutcome(NamedTuple):
    """Predictions of masked tokens, compared with their targets."""

    is_right: Tensor  # bool [n]
    target: Tensor  # int64 [n]
    item: Tensor  # int64 [n], position among the held-out items
    loss: Tensor  # float32 [], summed


@torch.no_grad()
def measure_masked(
    network: BEiT3OrMini, task: PretrainTask, draws: int = 1
) -> dict[str, float | None]:
    """Return loss and accuracy on masked tokens of held-out items, with the same masks each time.

    For `mim` and `mlm` each, None without targets: `_held_out_loss`, mean cross-entropy;
    `_accuracy`; `_chance`, the accuracy of always predicting the most frequent token of train
    items; `_margin_se`, the standard error over items of accuracy minus chance, None for one item;
    `_rare_accuracy`, the accuracy on all other tokens. Masks are drawn up to `draws` times, until
    there are MIN_TARGETS of each kind.
    """
    rates = task.rates._replace(hidden=0.0)
    outcomes: dict[str, list[MaskedOutcome]] = {"mim": [], "mlm": []}
    for draw in range(draws):
        seed = seed_for(task.seed, "held out masks", *([draw] if draw else []))
        for rows in _plan_passes(task, task.corpus.lengths_of_items[task.held_out]):
            batch = make_batch(task, task.held_out[rows], rates, seed)
            with autocast(task):
                logits = predict_masked(network, batch, task.mask_id)
            places = torch.as_tensor(rows, device=task.device)
            outcomes["mim"].append(
                _compare_with_target(logits.patches, batch.codes, batch.patch_mask, places)
            )
            outcomes["mlm"].append(
                _compare_with_target(logits.pieces, batch.inputs.ids, batch.piece_mask, places)
            )
        counts = [sum(len(part.target) for part in parts) for parts in outcomes.values()]
        if all(count >= MIN_TARGETS for count in counts if count):
            break

    figures = {}
    for term, parts in outcomes.items():
        for name, value in _summarise_outcomes(parts, task.most_frequent[term]).items():
            figures[f"{term}_{name}"] = value
    return figures


def _compare_with_target(
    logits: Tensor, tokens: Tensor, mask: Tensor, places: Tensor
) -> MaskedOutcome:
    """Compare logits, [n, C], with masked tokens of [B, P] of the items at `places`, int64 [B]."""
    target = tokens[mask]
    item = places[mask.nonzero()[:, 0]]
    return MaskedOutcome(logits.argmax(1) == target, target, item, cross_entropy(logits, target))


def _summarise_outcomes(parts: list[MaskedOutcome], frequent: int) -> dict[str, float | None]:
    target = torch.cat([part.target for part in parts]) if parts else torch.zeros(0)
    if not len(target):
        return dict.fromkeys(("held_out_loss", "accuracy", "chance", "margin_se", "rare_accuracy"))

    is_right = torch.cat([part.is_right for part in parts]).double()
    is_frequent = (target == frequent).double()
    is_rare = 1 - is_frequent
    loss = sum(float(part.loss) for part in parts)
    right_rare = (is_right * is_rare).sum()
    return {
        "held_out_loss": round(loss / len(target), 6),
        "accuracy": round(float(is_right.mean()), 6),
        "chance": round(float(is_frequent.mean()), 6),
        "margin_se": clustered_error(is_right - is_frequent, torch.cat([x.item for x in parts])),
        "rare_accuracy": round(float(right_rare / is_rare.sum().clamp(min=1)), 6),
    }


def clustered_error(margin: Tensor, item: Tensor) -> float | None:
    """Return the standard error of the mean of margins, float64 [n], which vary with the item.

    That of a ratio of sums over items, int64 [n]: targets of one item are no independent evidence.
    """
    deviation = margin - margin.mean()
    items, item_index = item.unique(return_inverse=True)
    if len(items) < 2:
        return None
    of_items = torch.zeros(len(items), dtype=margin.dtype, device=margin.device)
    of_items.index_add_(0, item_index, deviation)
    variance = of_items.square().sum() * len(items) / (len(items) - 1)
    return round(float(variance.sqrt()) / len(margin), 6)


@torch.no_grad()
def measure_cosine(model: PretrainingModel, task: PretrainTask) -> float | None:
    """Return the mean cosine of held-out items' predicted and actual teacher vectors.

    None without teachers.
    """
    if model.teacher is None or task.target is None:
        return None
    target = torch.from_numpy(task.target[task.held_out]).to(task.device)
    has_target = target.any(dim=1)
    if not has_target.any():
        return None

    summaries = encode_items(model.network, task, task.held_out)
    x = torch.from_numpy(summaries).to(task.device)[has_target]
    predicted = model.teacher(model.whitening.read(x))
    cosines = F.cosine_similarity(predicted, target[has_target], dim=1)
    return round(float(cosines.mean()), 6)


@torch.no_grad()
def encode_items(network: BEiT3OrMini, task: PretrainTask, items: np.ndarray) -> np.ndarray:
    """Return each item's summary, unmasked, averaged over all parts of its text: float32 [n, D]."""
    parts, owner, share = task.corpus.all_parts(items)
    out = np.zeros((len(items), network.summary_width), np.float32)
    for rows in _plan_passes(task, task.corpus.lengths[parts]):
        batch = make_batch(task, items[owner[rows]], NO_MASKING, 0, parts[rows])
        summaries = network.summary(*batch.inputs).float().cpu().numpy()
        np.add.at(out, owner[rows], share[rows, None] * summaries)
    return out


def autocast(task: PretrainTask) -> torch.autocast:
    is_bfloat16 = task.params.precision == "bfloat16"
    return torch.autocast(task.device.type, torch.bfloat16, enabled=is_bfloat16)


def _plan_passes(task: PretrainTask, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions of inputs per forward pass, given their lengths in tokens, int64 [n]."""
    size = max(1, task.params.batch_size // task.params.accumulate)
    order = np.argsort(lengths, kind="stable")  # shortest first, which saves padding
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield from split_batch(places, lengths[places])
