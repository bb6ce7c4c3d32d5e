"""The pre-training loop: batches, steps, held-out accuracy, exact checkpoints.

Letters: I items, B batch, P patches, T text ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import corpus as data
from pipeline import whiten
from pipeline.checkpoint import Checkpoint
from pipeline.config import Pretrain
from pipeline.corpus import Corpus, Rates
from pipeline.encoders import pixels
from pipeline.encoders.beit3 import BEiT3
from pipeline.objective import Step, Summary, losses, predict
from pipeline.seeds import seed_for
from pipeline.tokens import UNK, pad
from pipeline.whiten import Whitening

BETAS = (0.9, 0.98)  # of AdamW, as BEiT
EPSILON = 1e-6
MOST = 50_000
"""items that the whitening is fitted to, at most"""
UNDECAYED = ("cls_token", "mask_token", "embed_positions", "place")


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

    @property
    def rates(self) -> Rates:
        """How much is hidden while training."""
        p = self.params
        return Rates(p.image_mask, p.text_mask, p.text_only_mask, p.hide)


class Learner(nn.Module):
    """What the optimiser moves: the network and, unless None, the reader of CLS."""

    def __init__(self, network: BEiT3, summary: Summary | None) -> None:
        super().__init__()
        self.network = network
        self.summary = summary


def fit(network: BEiT3, task: Task, checkpoint: Checkpoint, done: Callable[[int], object]) -> list[dict[str, Any]]:
    """Train in place, from the checkpoint if there is one.

    Args:
        network: on the task's device.
        task: data, parameters, seed.
        checkpoint: written every few epochs; the caller deletes it when the result is safe.
        done: called after each step with the number of items.

    Returns:
        history, an object an epoch: epoch; means over steps: loss, mim_loss, mlm_loss, summary_loss; lr; of held-out
        items: mim_accuracy, mim_chance, mlm_accuracy, mlm_chance (None where there is nothing to predict).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    c = network.config
    torch.set_num_threads(task.params.threads)
    torch.manual_seed(seed_for(task.seed, "summary"))
    summary = Summary(c.width, c.patches, c.codes, c.vocab).to(task.device) if task.params.summary else None
    learner = Learner(network, summary)
    optimizer = _optimizer(learner, task.params)
    train, held_out = split(task.corpus.usable, task.params.held_out, seed_for(task.seed, "held out"))
    steps = task.params.epochs * math.ceil(len(train) / task.params.batch_size)
    history: list[dict[str, Any]] = []
    if (found := checkpoint.load()) is not None:
        history = found[1]
        _restore(learner, optimizer, found[0])
        done(len(history) * len(train))
    for epoch in range(len(history) + 1, task.params.epochs + 1):
        means = _epoch(learner, optimizer, task, train, epoch, steps, done)
        history.append({"epoch": epoch, **means, **measure(network, task, held_out)})
        if epoch % checkpoint.every == 0 and epoch < task.params.epochs:
            checkpoint.save(_state(learner, optimizer), history)
    return history


def split(usable: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items to learn from and items that only measure, both int64, sorted."""
    order = np.random.default_rng(seed).permutation(usable)
    n = round(share * len(order))
    return np.sort(order[n:]), np.sort(order[:n])


def learning_rate(step: int, steps: int, params: Pretrain) -> float:
    """Return the rate of step 0 .. steps-1: linear up over the warm-up, then half a cosine down to zero."""
    rising = max(1, round(params.warmup * steps))
    if step < rising:
        return params.lr * (step + 1) / rising
    return params.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.no_grad()
def measure(network: BEiT3, task: Task, items: np.ndarray) -> dict[str, float | None]:
    """Return accuracies at masked positions of `items`, and what naming the commonest token always would reach.

    The masks are the same at every call.
    """
    network.eval()
    right = {"mim": 0, "mlm": 0}
    truth: dict[str, list[np.ndarray]] = {"mim": [], "mlm": []}
    rates = Rates(task.params.image_mask, task.params.text_mask, task.params.text_only_mask, 0.0)
    rng = np.random.default_rng(seed_for(task.seed, "held out masks"))
    for start in range(0, len(items), task.params.batch_size):
        step = batch(task, items[start : start + task.params.batch_size], rates, rng)
        with _precision(task.device):
            scores = predict(network, step, task.mask_id)
        for name, logits, target in (
            ("mim", scores.patches, step.codes[step.patches]),
            ("mlm", scores.pieces, step.ids[step.pieces]),
        ):
            right[name] += int((logits.argmax(1) == target).sum())
            truth[name].append(target.cpu().numpy())
    out: dict[str, float | None] = {}
    for name, targets in truth.items():
        counts = np.unique(np.concatenate([np.empty(0, np.int64), *targets]), return_counts=True)[1]
        n = int(counts.sum())
        out[f"{name}_accuracy"] = round(right[name] / n, 6) if n else None
        out[f"{name}_chance"] = round(int(counts.max()) / n, 6) if n else None
    return out


def whitening(network: BEiT3, task: Task) -> Whitening:
    """Fit the whitening of CLS to the items that were learned from, or to MOST of them."""
    train, _ = split(task.corpus.usable, task.params.held_out, seed_for(task.seed, "held out"))
    some = np.random.default_rng(seed_for(task.seed, "whitening")).permutation(train)[:MOST]
    return whiten.fit(summaries(network, task, np.sort(some)))


@torch.no_grad()
def summaries(network: BEiT3, task: Task, items: np.ndarray) -> np.ndarray:
    """Return CLS of the pass over all that each item has, nothing masked: float32 [n, D]."""
    network.eval()
    rng = np.random.default_rng(0)  # draws nothing: all rates are zero
    found = [np.empty((0, network.config.width), np.float32)]
    for start in range(0, len(items), task.params.batch_size):
        step = batch(task, items[start : start + task.params.batch_size], Rates(0, 0, 0, 0), rng)
        vision = network(step.image, step.ids, padding=step.padding, no_image=step.no_image, first_only=True).vision
        found.append(vision[:, 0].float().cpu().numpy())
    return np.concatenate(found)


def batch(task: Task, items: np.ndarray, rates: Rates, rng: np.random.Generator) -> Step:
    """Draw the masks of some items and bring all of it to the device."""
    corpus, device = task.corpus, task.device
    ids, padding = pad([corpus.texts[i] for i in items])
    has_image, has_text = corpus.row[items] >= 0, np.array([len(corpus.texts[i]) > 2 for i in items])
    side = corpus.pictures.shape[1]
    patches = task.codes.shape[1]
    m = data.masked(items, ids, has_image, has_text, math.isqrt(patches), rates, rng)
    shown = np.zeros((len(items), side, side, 3), np.uint8)
    codes = np.zeros((len(items), patches), np.int64)
    rows = corpus.row[items][has_image]
    shown[has_image], codes[has_image] = corpus.pictures[rows], task.codes[rows]

    def move(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(device)

    return Step(
        pixels.normalised(shown).to(device),
        move(codes),
        move(ids),
        move(padding | m.no_text[:, None]),
        move(m.patches),
        move(m.tokens),
        move(m.no_image),
        move(has_image),
        move(~padding & (ids > UNK)),
    )


def pick_device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _epoch(learner: Learner, optimizer: torch.optim.AdamW, task: Task, train: np.ndarray, epoch: int, steps: int,
           done: Callable[[int], object]) -> dict[str, float]:  # fmt: skip
    learner.train()
    rng = np.random.default_rng(seed_for(task.seed, "epoch", epoch))
    sums, n, rate = np.zeros(4), 0, 0.0
    for items in data.batches(train, task.params.batch_size, rng):
        rate = learning_rate((epoch - 1) * math.ceil(len(train) / task.params.batch_size) + n, steps, task.params)
        for group in optimizer.param_groups:
            group["lr"] = rate
        step = batch(task, items, task.rates, rng)
        with _precision(task.device):
            terms = losses(predict(learner.network, step, task.mask_id), learner.summary, step)
        total = terms.mim + terms.mlm + task.params.summary * (terms.patches + terms.words)
        if not torch.isfinite(total):
            raise FloatingPointError(f"epoch {epoch}, step {n + 1}: the loss is {float(total)}; lower pretrain.lr")
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), task.params.clip)
        optimizer.step()
        values = [total, terms.mim, terms.mlm, terms.patches + terms.words]
        sums, n = sums + torch.stack(values).detach().cpu().double().numpy(), n + 1
        done(len(items))
    means = dict(zip(("loss", "mim_loss", "mlm_loss", "summary_loss"), sums / max(1, n), strict=True))
    return {name: round(float(value), 6) for name, value in means.items()} | {"lr": rate}


def _precision(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU float32, which is as fast at small widths and the same bits each time."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _optimizer(learner: Learner, params: Pretrain) -> torch.optim.AdamW:
    """Return AdamW that decays matrices, not biases, norms, positions and special tokens."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        groups[parameter.ndim >= 2 and not any(part in name for part in UNDECAYED)].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": params.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=params.lr,
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )


def _state(learner: Learner, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Return weights, and AdamW's moments and steps by parameter number."""
    found = {f"weights.{name}": value for name, value in learner.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        found |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    return found


def _restore(learner: Learner, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]) -> None:
    learner.load_state_dict(
        {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}, strict=True
    )
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, number, name = key.split(".")
            state["state"].setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(state)
