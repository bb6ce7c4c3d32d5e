"""Training loop of all recommenders: sample, step, rank valid, keep the best epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.projections import first_not_finite
from alignrec.pipeline.models.base import Batch, GraphRecommender, Inputs, Recommender
from alignrec.pipeline.models.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.models.metrics import evaluate_vectors
from alignrec.pipeline.models.params import Accumulating, Train
from alignrec.pipeline.models.scores import Filter, Vectors
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.runtime.checkpoint import Checkpoint, adam_state, restore_adam
from alignrec.pipeline.runtime.process import keep_large_buffers
from alignrec.pipeline.runtime.seeds import seed_for

Progress = Callable[[dict[str, Any]], object]  # gets each epoch's entry of the history
EPOCHS_PER_DECAY = 50  # in which the learning rate is multiplied by `lr_decay`
# of all embeddings, up to which freed buffers are kept; larger ones would fragment memory: 11.7
# instead of 9.6 times the embeddings
MAX_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Fit:
    """A trained recommender at its best valid epoch."""

    user: np.ndarray | sp.csr_array  # float32 [U, D]; sparse for some models
    # float32 [I, D], score = dot product; or a filter on histories
    item: np.ndarray | sp.csr_array | Filter
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
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    parts: Sequence[int] = (),
    sampler: Callable[[Split], Sampler] = Sampler,
) -> Fit:
    """Train a recommender until valid Recall@20 stops improving; return its best epoch.

    `features` and `edges` (schema EDGES) are for models that use them, and `parts` are the widths
    of the modalities in `features`. UserError: invalid input, or diverged loss.
    """
    if 4 * params.dim * (split.n_users + split.n_items) <= MAX_KEPT_BYTES:
        keep_large_buffers()
    device = pick_device()
    _check_needs(model, features, edges)
    _check_features(features, split.n_items, parts)
    _check_edges(edges, split.n_items)
    _check_valid(split)

    table = None
    if features is not None:
        table = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
    inputs = Inputs(split, table, edges, device, tuple(parts))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model(inputs, params).to(device)
        if not list(network.parameters()):
            return _without_training(network, split)
        training = _Training(network, split, sampler(split), params, seed, checkpoint)
        training.run(progress)
        return training.fitted()


def compile_network(
    network: Recommender, backend: str | Callable[..., Any] = "inductor"
) -> Callable[[Batch], dict[str, Tensor]]:
    """Compile the loss with its gradient.

    On a GPU, CUDA graphs avoid the launch overhead of small kernels.
    """
    # one graph per shape: of full batches and of the last one; a loss must be read before the next
    # call overwrites it
    torch.compiler.reset()  # torch limits the number of compiled networks
    mode = "reduce-overhead" if backend == "inductor" else None
    return torch.compile(network.loss, backend=backend, mode=mode, dynamic=False)


def accumulate_gradients(network: GraphRecommender, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Backpropagate the mean loss of several batches through one propagation.

    Returns the sum of each term. Tables are freed before their gradients are propagated.
    """
    edges, leaves = _detach_tables(network)
    totals: dict[str, Tensor] = {}
    for batch in batches:
        for name, term in _backpropagate_batch(network, batch, leaves, len(batches)).items():
            totals[name] = totals.get(name, 0.0) + term
        _make_gradients_dense(leaves)

    used = []
    gradients = []
    for edge, leaf in zip(edges, leaves, strict=True):
        if leaf.grad is not None:
            used.append(edge)
            gradients.append(leaf.grad)
    del leaves, leaf  # the last references to the tables
    torch.autograd.backward(used, gradients)
    return totals


def _make_gradients_dense(leaves: Sequence[Tensor]) -> None:
    # autograd would concatenate the sparse ones, which copies all earlier batches for each
    for leaf in leaves:
        if leaf.grad is not None and leaf.grad.is_sparse:
            leaf.grad = leaf.grad.to_dense()


def _detach_tables(network: GraphRecommender) -> tuple[list[GradientEdge], list[Tensor]]:
    """Return the network's tables as leaves, and where their gradients are propagated from."""
    edges = []
    leaves = []
    for table in network.tables():
        edges.append(get_gradient_edge(table))
        leaves.append(table.detach().requires_grad_())
    return edges, leaves


def _backpropagate_batch(
    network: GraphRecommender, batch: Batch, leaves: Sequence[Tensor], n_batches: int
) -> dict[str, Tensor]:
    terms = network.terms(batch, *leaves)
    (torch.stack(list(terms.values())).sum() / n_batches).backward()
    return {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def _without_training(network: Recommender, split: Split) -> Fit:
    user, item = (x.cpu().numpy() if isinstance(x, Tensor) else x for x in network())
    valid = rank_valid(user, item, split)
    line = {"epoch": 0, "loss": 0.0} | _valid_entries(valid)
    return Fit(user, item, state={}, history=[line], best_epoch=0, valid=valid)


def rank_valid(user: Vectors, item: Vectors, split: Split) -> dict[str, float]:
    cutoff = bounded_cutoff(split.n_items)
    # as in `selecting_protocol`
    candidates = split.cold_items("valid") if split.has_cold_items else None
    mean = evaluate_vectors(user, item, split, "valid", [cutoff], candidates=candidates).mean
    return {f"{name}@{CUTOFF}": mean[name, cutoff] for name in ("recall", "ndcg")}


def _valid_entries(valid: dict[str, float]) -> dict[str, float]:
    return {f"valid_{name}": value for name, value in valid.items()}


class _Training:
    """State of a training run.

    Checkpoints contain weights, Adam's state, the history, and the best epoch.
    """

    def __init__(
        self,
        network: Recommender,
        split: Split,
        sampler: Sampler,
        params: Train,
        seed: int,
        checkpoint: Checkpoint | None,
    ):
        self.network = network
        self.split = split
        self.sampler = sampler
        self.params = params
        self.seed = seed
        self.checkpoint = checkpoint
        self.history: list[dict[str, Any]] = []
        self.best_recall = -1.0
        self.best_epoch = -1
        self.best_state: dict[str, Tensor] = {}  # parameters and vectors of the best epoch

        self.device = next(network.parameters()).device
        self.batches_per_step = 1
        if isinstance(params, Accumulating) and isinstance(network, GraphRecommender):
            self.batches_per_step = params.accumulate
        self.loss: Callable[[Batch], dict[str, Tensor]] = network.loss
        if params.compile and self.device.type == "cuda":
            self.loss = compile_network(network)
        is_fused = self.device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.Adam(network.groups(), lr=params.lr, fused=is_fused)

    def run(self, progress: Progress | None) -> None:
        self._resume()
        for epoch in range(len(self.history), self.params.epochs):
            if self._is_over(epoch):
                break
            terms = self._train_epoch(epoch)
            self._judge_epoch(epoch, terms)
            if self.checkpoint and (epoch + 1) % self.checkpoint.every == 0:
                self._save(self.checkpoint)
            if progress:
                progress(self.history[-1])

    def fitted(self) -> Fit:
        best = self.history[self.best_epoch]
        state = {}
        valid = {}
        for name, tensor in self.best_state.items():
            if name.startswith("state."):
                state[name.removeprefix("state.")] = tensor
        for name, value in best.items():
            if name.startswith("valid_"):
                valid[name.removeprefix("valid_")] = value
        return Fit(
            user=self.best_state["user"].numpy(),
            item=self.best_state["item"].numpy(),
            state=state,
            history=self.history,
            best_epoch=self.best_epoch,
            valid=valid,
        )

    def _resume(self) -> None:
        saved = self.checkpoint.load() if self.checkpoint else None
        if saved is None:
            return

        tensors, state = saved
        self.network.load_state_dict(self.network.state_dict() | tensors["model"])
        restore_adam(self.optimiser, tensors["adam"])
        self.best_state = tensors["best"]
        self.history = state["history"]
        self.best_recall = state["best"]
        self.best_epoch = state["best_epoch"]

    def _save(self, checkpoint: Checkpoint) -> None:
        tensors = {
            "model": self.network.state_dict(),
            "best": self.best_state,
            "adam": adam_state(self.optimiser),
        }
        state = {
            "history": self.history,
            "best": self.best_recall,
            "best_epoch": self.best_epoch,
        }
        checkpoint.save(tensors, state)

    def _is_over(self, epoch: int) -> bool:
        patience = self.params.patience
        falling = self.params.falling
        if epoch - self.best_epoch <= patience:
            return False
        if falling is None:
            return True

        # with `falling`, training also continues until the loss has converged
        losses = [line["loss"] for line in self.history]
        fall = losses[-1 - patience] - losses[-1]
        return bool(fall <= falling * losses[0])

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Take the epoch's steps; return the mean of each term over batches."""
        self.network.train()
        torch.manual_seed(seed_for("epoch", self.seed, epoch))
        self.network.start_epoch()
        lr = self.params.lr * self.params.lr_decay ** (epoch / EPOCHS_PER_DECAY)
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * lr

        pairs = torch.from_numpy(self.sampler.epoch(np.random.default_rng([self.seed, epoch])))
        columns = pairs.to(self.device).split(self.params.batch_size, dim=1)
        batches = [Batch(*rows) for rows in columns]
        totals: dict[str, Tensor] = {}
        for start in range(0, len(batches), self.batches_per_step):
            terms = self._step(batches[start : start + self.batches_per_step])
            for name, term in terms.items():
                total = totals.get(name, torch.zeros((), device=self.device))
                totals[name] = total + term.detach()
        return {name: float(total) / len(batches) for name, total in totals.items()}

    def _step(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Take a step on several batches, or on one; return the sum of each term."""
        self.optimiser.zero_grad()
        if self.batches_per_step > 1:
            assert isinstance(self.network, GraphRecommender)
            terms = accumulate_gradients(self.network, batches)
        else:
            terms = self.loss(batches[0])
            torch.stack(list(terms.values())).sum().backward()
        self.optimiser.step()
        return terms

    @torch.no_grad()
    def _judge_epoch(self, epoch: int, terms: dict[str, float]) -> None:
        self.network.eval()
        user, item = self.network()
        loss = sum(terms.values())
        is_finite = bool(user.isfinite().all()) and bool(item.isfinite().all())
        if not (np.isfinite(loss) and is_finite):
            values = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
            raise UserError(
                f"{type(self.network).__name__}: the loss diverged in epoch {epoch} ({values}) "
                f"with {self.params.model_dump()}; try a lower train.lr"
            )

        valid = rank_valid(user, item, self.split)
        self.history.append({"epoch": epoch, "loss": loss, **terms, **_valid_entries(valid)})
        recall = valid[f"recall@{CUTOFF}"]
        if self.params.decimals is not None:
            recall = round(recall, self.params.decimals)
        if recall > self.best_recall:
            self.best_recall = recall
            self.best_epoch = epoch
            self.best_state = self._copy_state(user, item)

    def _copy_state(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        tensors = {"user": user, "item": item}
        for name, parameter in self.network.state_dict().items():
            tensors[f"state.{name}"] = parameter
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _check_needs(
    model: type[Recommender], features: np.ndarray | None, edges: pa.Table | None
) -> None:
    optional = {"features": features, "edges": edges}
    absent = [name for name in sorted(model.needs) if optional[name] is None]
    if absent:
        raise UserError(f"{model.__name__} needs {absent[0]}; none were given")


def _check_features(features: np.ndarray | None, n_items: int, parts: Sequence[int]) -> None:
    if features is None:
        return

    n_rows, width = features.shape
    if n_rows != n_items:
        raise UserError(
            f"features have {n_rows} rows, the catalogue has {n_items} items; encode again"
        )
    if parts and sum(parts) != width:
        raise UserError(
            f"modalities of widths {list(parts)} make {sum(parts)} columns, the features have "
            f"{width}; correct benchmark.modalities"
        )
    broken_row = first_not_finite(features)
    if broken_row is not None:
        raise UserError(f"features, row {broken_row}: not finite; encode again")


def _check_edges(edges: pa.Table | None, n_items: int) -> None:
    if edges is None:
        return

    largest = max(edges[name].to_numpy().max() for name in ("item_id", "neighbour_id"))
    if largest >= n_items:
        raise UserError(
            f"edges name items beyond the catalogue's {n_items}; run the graph stage again"
        )


def _check_valid(split: Split) -> None:
    if not len(split.valid):
        raise UserError("no valid interactions: the best epoch cannot be chosen; check the split")
    if not split.has_cold_items:
        return

    n_cold = len(split.cold_items("valid"))
    if n_cold <= CUTOFF:
        raise UserError(
            f"only {n_cold} items are cold in valid, and the best epoch is chosen by "
            f"recall@{CUTOFF} among them; raise interactions.cold_share"
        )
