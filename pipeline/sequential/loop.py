"""Trains a sequential recommender until valid NDCG@20 stops to grow; a killed training ends as any other.

Letters: U users, W windows, T longest history.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.metrics import judge
from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam
from pipeline.ops.device import one_thread, pick
from pipeline.seeds import seed_for
from pipeline.sequential.base import Sequential
from pipeline.sequential.judging import rankings
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import Sequences

CHOSEN_BY = f"valid_ndcg@{CUTOFF}"
"""figure of a line of the history; NDCG also says where a target stands, so a small catalogue is not all ties"""
ALIKE = 8
"""batches whose windows are sorted by length, so that few places of a batch are padding"""


@dataclass(frozen=True)
class Fit:
    """A trained recommender, as it was at its best valid epoch."""

    network: Sequential
    """in evaluation mode"""
    history: list[dict[str, Any]]
    """one object an epoch: epoch, loss (mean over batches), valid_recall@20, valid_ndcg@20"""
    best_epoch: int


def fit(
    build: Callable[[], Sequential],
    sequences: Sequences,
    params: Generative,
    rate: float,
    seed: int,
    progress: Callable[[dict[str, Any]], object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train a recommender; valid chooses the epoch, test is not looked at.

    An epoch predicts every train item that has one before it once. Its randomness depends on `seed` and its number
    alone, so a run that resumes from a checkpoint ends as one that was never interrupted.

    Args:
        build: makes the network, with initial values from torch's generator.
        sequences: train and valid are used.
        rate: learning rate of Adam.
        seed: of initial values, order and dropout.

    Raises:
        UserError: no user has two train items, or the loss diverges.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(pick())
        return _Loop(network, sequences, params, rate, seed, checkpoint).run(progress)


@dataclass
class _Progress:
    """The state of a run besides network and optimiser; a checkpoint holds all of it."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)


class _Loop:
    def __init__(
        self, network: Sequential, sequences: Sequences, params: Generative, rate: float, seed: int,
        checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        self.network, self.sequences, self.params, self.rate = network, sequences, params, rate
        self.seed, self.checkpoint = seed, checkpoint
        self.weights = dict(network.named_parameters())
        self.device = next(iter(self.weights.values())).device
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        self.rows, self.ends = cut_windows(sequences, params.length if network.every else 1)
        self.targets = sequences.split().valid
        self.now = _Progress()

    def run(self, progress: Callable[[dict[str, Any]], object] | None) -> Fit:
        self._restore()
        for epoch in range(len(self.now.history), self.params.epochs):
            if epoch - self.now.best_epoch > self.params.patience:
                break
            self._judge(epoch, self._epoch(epoch))
            if self.checkpoint and (epoch + 1) % self.checkpoint.every == 0:
                self._save()
            if progress:
                progress(self.now.history[-1])
        self._load(self.now.best)
        return Fit(self.network.eval(), self.now.history, self.now.best_epoch)

    def _epoch(self, epoch: int) -> float:
        """Take one step a batch; return the mean loss."""
        self.network.train()
        torch.manual_seed(seed_for("epoch", self.seed, epoch))
        total, batches = 0.0, list(self._batches(np.random.default_rng([self.seed, epoch])))
        for batch in batches:
            windows = self.sequences.windows(self.rows[batch], self.ends[batch], self.params.length + 1)
            self.optimiser.zero_grad()
            loss = self.network.loss(torch.from_numpy(windows).to(self.device))
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach())
        if not np.isfinite(total):
            raise UserError(
                f"{type(self.network).__name__}: the loss diverged in epoch {epoch} at a learning rate of "
                f"{self.rate:g}; give lower 'study.generative.rates'"
            )
        return total / len(batches)

    def _batches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the windows of each batch, int64 [b]: a random order, but those of a batch are of similar length."""
        lengths = np.minimum(self.ends - self.sequences.start[self.rows], self.params.length + 1)
        order, size = rng.permutation(len(self.ends)), self.params.batch_size
        batches = []
        for at in range(0, len(order), ALIKE * size):
            group = order[at : at + ALIKE * size]
            group = group[np.argsort(lengths[group], kind="stable")]
            batches += [group[i : i + size] for i in range(0, len(group), size)]
        for number in rng.permutation(len(batches)):
            yield batches[number]

    def _judge(self, epoch: int, loss: float) -> None:
        """Rank valid, record the epoch, and keep it if it is the best so far."""
        cutoff = bounded(self.sequences.n_items)
        top = rankings(self.network.eval(), self.sequences, "valid", self.params.length, cutoff, self.device)
        mean = judge(top, self.sequences.users, self.targets, self.sequences.n_items, [cutoff]).mean
        scores = {f"valid_{name}@{CUTOFF}": mean[name, cutoff] for name in ("recall", "ndcg")}
        if not self.now.history or scores[CHOSEN_BY] > self.now.history[self.now.best_epoch][CHOSEN_BY]:
            self.now.best_epoch = epoch
            self.now.best = {name: x.detach().cpu().clone() for name, x in self.weights.items()}
        self.now.history.append({"epoch": epoch, "loss": loss, **scores})

    def _save(self) -> None:
        assert self.checkpoint
        tensors = (
            named("model", self.weights) | named("best", self.now.best) | named("adam", adam_state(self.optimiser))
        )
        self.checkpoint.save(tensors, {"history": self.now.history, "best_epoch": self.now.best_epoch})

    def _restore(self) -> None:
        saved = self.checkpoint.load() if self.checkpoint else None
        if saved is None:
            return
        tensors, state = saved
        self._load(part_of(tensors, "model"))
        restore_adam(self.optimiser, part_of(tensors, "adam"))
        self.now = _Progress(state["history"], state["best_epoch"], part_of(tensors, "best"))

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        for name, x in self.weights.items():
            x.copy_(tensors[name])


def cut_windows(sequences: Sequences, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return user and end of each window, int64 [W]: from the last train item backwards, `step` items apart."""
    stops = sequences.last("train") + 1
    counts = -(-(stops - sequences.start[:-1] - 1) // step)  # the first item has none before it
    rows = np.repeat(np.arange(len(stops)), counts)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    if not len(rows):
        raise UserError("interactions: study.generative needs users with two train items, and there is none")
    return rows, stops[rows] - step * number
