"""Trains a sequential recommender until valid NDCG@20 stops to grow; a killed training ends as any other.

Letters: U users, W windows, T longest history.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.metrics import judge
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import one_thread, pick
from pipeline.seeds import seed_for
from pipeline.sequential.base import Sequential
from pipeline.sequential.judging import rankings
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import Sequences
from pipeline.train.epochs import Epochs

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

    An epoch predicts every train item that has one before it once.

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
        loop = _Loop(network, sequences, params, rate, seed, checkpoint)
        loop.run(progress)
        return loop.fitted()


class _Loop(Epochs):
    def __init__(
        self, network: Sequential, sequences: Sequences, params: Generative, rate: float, seed: int,
        checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network: Sequential = network
        self.sequences, self.params, self.rate = sequences, params, rate
        self.seed, self.checkpoint = seed, checkpoint
        self.epochs, self.patience = params.epochs, params.patience
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        self.rows, self.ends = cut_windows(sequences, params.length if network.every else 1)
        self.targets = sequences.split().valid

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters, each once: T5 has one table under several names."""
        return dict(self.network.named_parameters())

    def fitted(self) -> Fit:
        """Return the network as it was at its best epoch."""
        self.network.load_state_dict(self.kept, strict=False)
        return Fit(self.network.eval(), self.history, self.best_epoch)

    def steps(self, epoch: int) -> float:
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

    def judge(self, epoch: int, loss: float) -> None:
        """Rank valid, record the epoch, and keep it if it is the best so far."""
        cutoff = bounded(self.sequences.n_items)
        top = rankings(self.network.eval(), self.sequences, "valid", self.params.length, cutoff, self.device)
        mean = judge(top, self.sequences.users, self.targets, self.sequences.n_items, [cutoff]).mean
        scores = {f"valid_{name}@{CUTOFF}": mean[name, cutoff] for name in ("recall", "ndcg")}
        self.history.append({"epoch": epoch, "loss": loss, **scores})
        if scores[CHOSEN_BY] > self.best:
            self.keep(scores[CHOSEN_BY], self.weights())


def cut_windows(sequences: Sequences, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return user and end of each window, int64 [W]: from the last train item backwards, `step` items apart."""
    stops = sequences.last("train") + 1
    counts = -(-(stops - sequences.start[:-1] - 1) // step)  # the first item has none before it
    rows = np.repeat(np.arange(len(stops)), counts)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    if not len(rows):
        raise UserError("interactions: study.generative needs users with two train items, and there is none")
    return rows, stops[rows] - step * number
