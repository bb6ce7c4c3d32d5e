"""What is measured of a network while it learns and after: accuracies on held-out items, and its features' whitening.

Letters: B batch, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.beit3.network import BEiT3
from pipeline.beit3.whitening import Whitening, fit
from pipeline.pretrain.batches import Task, batch
from pipeline.pretrain.corpus import Rates
from pipeline.pretrain.losses import cross_entropy, predict, whole
from pipeline.seeds import seed_for

MOST = 50_000
"""items that the whitening is fitted to, at most"""
NOTHING = Rates(0, 0, 0, 0)


@torch.no_grad()
def measure(network: BEiT3, task: Task) -> dict[str, float | None]:
    """Return how well masked tokens of held-out items are told; the masks are the same at every call.

    Returns:
        for `mim` and `mlm` each, None where there is nothing to predict: `_held_out_loss`, mean cross-entropy;
        `_accuracy`; `_chance`, what naming the commonest token always would reach; `_rare_accuracy`, the accuracy on
        all but the commonest token, where that reaches nothing.
    """
    params = task.params
    rates = Rates(params.image_mask, params.text_mask, params.text_only_mask, 0.0)
    seed = seed_for(task.seed, "held out masks")
    told: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"mim": [], "mlm": []}
    for items in _parts(task, task.held_out):
        step = batch(task, items, rates, seed)
        with precision(task):
            scores = predict(network, step, task.mask_id)
        told["mim"].append(_judged(scores.patches, step.codes[step.patches]))
        told["mlm"].append(_judged(scores.pieces, step.shown.ids[step.pieces]))
    return {f"{name}_{figure}": value for name, found in told.items() for figure, value in _figures(found).items()}


def _judged(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is right and what was to be told, both [n], and the summed loss; the logits would fill the memory."""
    return logits.argmax(1) == target, target, cross_entropy(logits, target)


def _figures(found: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float | None]:
    names = ("held_out_loss", "accuracy", "chance", "rare_accuracy")
    if not sum(len(target) for _, target, _ in found):
        return dict.fromkeys(names)
    right, target = torch.cat([part[0] for part in found]).double(), torch.cat([part[1] for part in found])
    loss = sum(float(part[2]) for part in found)
    common = (target == target.mode().values).double()
    rare = 1 - common
    of_rare = float((right * rare).sum() / rare.sum().clamp(min=1))
    values = (loss / len(target), float(right.mean()), float(common.mean()), of_rare)
    return {name: round(value, 6) for name, value in zip(names, values, strict=True)}


def whitening(network: BEiT3, task: Task) -> Whitening:
    """Fit the whitening of CLS to the items that were learned from, or to MOST of them."""
    some = np.random.default_rng(seed_for(task.seed, "whitening")).permutation(task.train)[:MOST]
    return fit(features(network, task, np.sort(some)))


@torch.no_grad()
def features(network: BEiT3, task: Task, items: np.ndarray) -> np.ndarray:
    """Return CLS of the pass over all that each item has, nothing masked: float32 [n, D]."""
    parts = (whole(network, batch(task, part, NOTHING, 0).shown) for part in _parts(task, items))
    none = np.empty((0, network.config.width), np.float32)
    return np.concatenate([none, *(part.float().cpu().numpy() for part in parts)])


def precision(task: Task) -> torch.autocast:
    """Return the context of every forward pass while learning."""
    low = task.params.precision == "bfloat16" or (task.params.precision == "auto" and task.device.type == "cuda")
    return torch.autocast(task.device.type, torch.bfloat16, enabled=low)


def _parts(task: Task, items: np.ndarray) -> Iterator[np.ndarray]:
    """Cut items into batches as large as what is on the device at once while learning."""
    size = max(1, task.params.batch_size // task.params.accumulate)
    yield from (items[start : start + size] for start in range(0, len(items), size))
