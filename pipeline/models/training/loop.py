"""Training loop of all recommenders: sample, step, rank valid, keep the best epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.metrics import evaluate_vectors
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.projections import first_not_finite
from alignrec.pipeline.linalg.scores import Filter, Vectors
from alignrec.pipeline.models.base import Batch, GraphRecommender, Inputs, Recommender
from alignrec.pipeline.models.params import Accumulating, Train
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.runtime.checkpoint import Checkpoint, adam_state, restore_adam
from alignrec.pipeline.runtime.process import keep_large_buffers
from alignrec.pipeline.runtime.seeds import seed_for


@dataclass(frozen=True)
class Fit:
    """A trained recommender at its best valid epoch."""

    user: np.ndarray | sp.csr_array  # float32 [U, D]; sparse for some models
    item: (
        np.ndarray | sp.csr_array | Filter
    )  # float32 [I, D], score = dot product; or a filter on histories
    state: dict[str, Tensor]  # the model's parameters
    history: list[dict[str, Any]]  # per epoch: epoch, mean loss and terms, valid metrics
    best_epoch: int
    valid: dict[str, float]  # valid metrics at the best epoch: "recall@20", "ndcg@20"


def fit(
    model: type[Recommender],
    split: Split,
    features: np.ndarray | None,
    edges: pa.Table | None,
    params: Train,
    seed: int,
    progress: Callable[[dict[str, Any]], object] | None = None,
    checkpoint: Checkpoint | None = None,
    parts: Sequence[int] = (),
    sampler: Callable[[Split], Sampler] = Sampler,
) -> Fit:
    """Train a recommender until valid Recall@20 stops improving; return its best epoch.

    `features` and `edges` (schema EDGES) are for models that use them, `parts` are the widths of the modalities in
    `features`, and `progress` gets each epoch's entry of the history. UserError: invalid input, or diverged loss.
    """
    keep_large_buffers()
    device = pick_device()
    _check_inputs(model, split, features, edges, parts)
    table = (
        None
        if features is None
        else torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
    )
    inputs = Inputs(split, table, edges, device, tuple(parts))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model(inputs, params).to(device)
        if not list(network.parameters()):
            return _without_training(network, split)
        loop = _Loop(network, split, sampler(split), params, seed, checkpoint)
        loop.run(progress)
        return loop.fitted()


def compile_network(
    network: Recommender, backend: str | Callable[..., Any] = "inductor"
) -> Callable[[Batch], dict[str, Tensor]]:
    """Compile the loss with its gradient; on a GPU, CUDA graphs avoid the launch overhead of small kernels."""
    # one graph per shape: of full batches and of the last one; a loss must be read before the next call overwrites it
    torch.compiler.reset()  # torch limits the number of compiled networks
    mode = "reduce-overhead" if backend == "inductor" else None
    return torch.compile(network.loss, backend=backend, mode=mode, dynamic=False)


def accumulate_gradients(network: GraphRecommender, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Backpropagate the mean loss of several batches through one propagation; return the sum of each term."""
    tables = network.tables()
    rows = [table.detach().requires_grad_() for table in tables]
    totals: dict[str, Tensor] = {}
    for batch in batches:
        terms = network.terms(batch, *rows)
        (torch.stack(list(terms.values())).sum() / len(batches)).backward()
        for name, term in terms.items():
            totals[name] = totals.get(name, 0.0) + term.detach()
    used = [
        (table, row.grad.to_dense())
        for table, row in zip(tables, rows, strict=True)
        if row.grad is not None
    ]
    torch.autograd.backward([table for table, _ in used], [gradient for _, gradient in used])
    return totals


@torch.no_grad()
def _without_training(network: Recommender, split: Split) -> Fit:
    user, item = (x.cpu().numpy() if isinstance(x, Tensor) else x for x in network())
    scores = rank_valid(user, item, split)
    line = {"epoch": 0, "loss": 0.0, **{f"valid_{name}": value for name, value in scores.items()}}
    return Fit(user, item, {}, [line], 0, scores)


def rank_valid(user: Vectors, item: Vectors, split: Split) -> dict[str, float]:
    cutoff = bounded_cutoff(split.n_items)
    candidates = split.cold_items("valid") if split.is_cold else None  # as in `selecting_protocol`
    mean = evaluate_vectors(user, item, split, "valid", [cutoff], candidates=candidates).mean
    return {f"{name}@{CUTOFF}": mean[name, cutoff] for name in ("recall", "ndcg")}


class _Loop:
    """State of a training run; checkpoints contain weights, Adam's state, the history, and the best epoch."""

    def __init__(
        self,
        network: Recommender,
        split: Split,
        sampler: Sampler,
        params: Train,
        seed: int,
        checkpoint: Checkpoint | None,
    ):
        self.network, self.split, self.params, self.seed, self.checkpoint = (
            network,
            split,
            params,
            seed,
            checkpoint,
        )
        self.history: list[dict[str, Any]] = []
        self.best, self.best_epoch = -1.0, -1
        self.kept: dict[str, Tensor] = {}  # parameters of the best epoch
        self.device = next(network.parameters()).device
        self.sampler = sampler
        self.together = params.accumulate if isinstance(params, Accumulating) else 1
        self.loss = (
            compile_network(network)
            if params.compile and self.device.type == "cuda"
            else network.loss
        )
        self.optimiser = torch.optim.Adam(
            network.groups(), lr=params.lr, fused=self.device.type in ("cpu", "cuda")
        )

    def run(self, progress: Callable[[dict[str, Any]], object] | None) -> None:
        if self.checkpoint and (saved := self.checkpoint.load()) is not None:
            parts, state = saved
            self.network.load_state_dict(self.network.state_dict() | parts["model"])
            restore_adam(self.optimiser, parts["adam"])
            self.kept = parts["best"]
            self.history, self.best, self.best_epoch = (
                state["history"],
                state["best"],
                state["best_epoch"],
            )
        for epoch in range(len(self.history), self.params.epochs):
            if self._is_over(epoch):
                break
            self._judge(epoch, self._steps(epoch))
            if self.checkpoint and (epoch + 1) % self.checkpoint.every == 0:
                weights, adam = self.network.state_dict(), adam_state(self.optimiser)
                state = {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}
                self.checkpoint.save({"model": weights, "best": self.kept, "adam": adam}, state)
            if progress:
                progress(self.history[-1])

    def fitted(self) -> Fit:
        return Fit(
            user=self.kept["user"].numpy(),
            item=self.kept["item"].numpy(),
            state={
                name.removeprefix("state."): x
                for name, x in self.kept.items()
                if name.startswith("state.")
            },
            history=self.history,
            best_epoch=self.best_epoch,
            valid={
                k[6:]: v for k, v in self.history[self.best_epoch].items() if k.startswith("valid_")
            },
        )

    def _is_over(self, epoch: int) -> bool:
        patience, falling = self.params.patience, self.params.falling
        # with `falling`, training also continues until the loss has converged
        if not (over := epoch - self.best_epoch > patience) or falling is None:
            return over
        losses = [line["loss"] for line in self.history]
        return bool(losses[-1 - patience] - losses[-1] <= falling * losses[0])

    def _steps(self, epoch: int) -> dict[str, float]:
        self.network.train()
        torch.manual_seed(seed_for("epoch", self.seed, epoch))
        self.network.start_epoch()
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self.params.lr * self.params.lr_decay ** (epoch / 50)
        drawn = torch.from_numpy(self.sampler.epoch(np.random.default_rng([self.seed, epoch]))).to(
            self.device
        )
        totals: dict[str, Tensor] = {}
        batches = [Batch(*rows) for rows in drawn.split(self.params.batch_size, dim=1)]
        for first in range(0, len(batches), self.together):
            some = batches[first : first + self.together]
            self.optimiser.zero_grad()
            if isinstance(self.network, GraphRecommender) and self.together > 1:
                terms = accumulate_gradients(self.network, some)
            else:
                terms = self.loss(some[0])
                torch.stack(list(terms.values())).sum().backward()
            for name, term in terms.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + term.detach()
            self.optimiser.step()
        return {name: float(total) / len(batches) for name, total in totals.items()}

    @torch.no_grad()
    def _judge(self, epoch: int, terms: dict[str, float]) -> None:
        self.network.eval()
        user, item = self.network()
        loss = sum(terms.values())
        if not (np.isfinite(loss) and bool(user.isfinite().all()) and bool(item.isfinite().all())):
            values = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
            raise UserError(
                f"{type(self.network).__name__}: the loss diverged in epoch {epoch} ({values}) "
                f"with {self.params.model_dump()}; try a lower train.lr"
            )
        scores = rank_valid(user, item, self.split)
        line = {f"valid_{name}": value for name, value in scores.items()}
        self.history.append({"epoch": epoch, "loss": loss, **terms, **line})
        recall = scores[f"recall@{CUTOFF}"]
        if self.params.decimals is not None:
            recall = round(recall, self.params.decimals)
        if recall > self.best:
            state = {f"state.{name}": x for name, x in self.network.state_dict().items()}
            self.best, self.best_epoch = recall, epoch
            self.kept = {
                n: x.detach().cpu().clone()
                for n, x in ({"user": user, "item": item} | state).items()
            }


def _check_inputs(
    model: type[Recommender],
    split: Split,
    features: np.ndarray | None,
    edges: pa.Table | None,
    parts: Sequence[int],
) -> None:
    optional = {"features": features, "edges": edges}
    if absent := [name for name in sorted(model.needs) if optional[name] is None]:
        raise UserError(f"{model.__name__} needs {absent[0]}; none were given")
    if features is not None and len(features) != split.n_items:
        raise UserError(
            f"features have {len(features)} rows, the catalogue has {split.n_items} items; encode again"
        )
    if features is not None and parts and sum(parts) != features.shape[1]:
        raise UserError(
            f"modalities of widths {list(parts)} make {sum(parts)} columns, the features have {features.shape[1]}; "
            "correct benchmark.modalities"
        )
    if features is not None and (wrong := first_not_finite(features)) is not None:
        raise UserError(f"features, row {wrong}: not finite; encode again")
    ends = () if edges is None else [edges["item_id"], edges["neighbour_id"]]
    if any(end.to_numpy().max() >= split.n_items for end in ends):
        raise UserError(
            f"edges name items beyond the catalogue's {split.n_items}; run the graph stage again"
        )
    if not len(split.valid):
        raise UserError("no valid interactions: the best epoch cannot be chosen; check the split")
    if split.is_cold and (n := len(split.cold_items("valid"))) <= CUTOFF:
        raise UserError(
            f"only {n} items are cold in valid, and the best epoch is chosen by recall@{CUTOFF} among them; raise "
            "interactions.cold_share"
        )
