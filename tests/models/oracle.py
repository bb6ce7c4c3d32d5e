"""Our models against figures of the reference implementations on a tiny case, tests/oracles/models/.

A test maps each of our parameters to its name in the reference, or to a function of the reference's arrays where ours
is a part of one or transposed. The reference's random draws replace ours.

    oracle = Oracle.load("lightgcn", torch.float64)
    network = oracle.build("lightgcn", {"user": "embedding_dict.user_emb", ..}, l2=0.01)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["reg"]})

Letters: U users, I items, F width of features, D width of embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.base import Batch, Inputs, Recommender

FOLDER = Path(__file__).parents[1] / "oracles/models"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
"""relative to the largest entry compared"""
NOISE = {torch.float32: 1e-8, torch.float64: 1e-14}
"""of gradients that are zero except for rounding"""
EMPTY = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])

Arrays = Callable[[str], np.ndarray]
Source = str | Callable[[Arrays], np.ndarray]
"""name or function that finds our parameter in the reference; the function also works for gradients"""


@dataclass
class Oracle:
    """Figures of one reference, read in one precision."""

    name: str
    dtype: torch.dtype
    arrays: dict[str, np.ndarray]
    sources: dict[str, Source] = field(default_factory=dict)
    """of the network that was built last"""

    @classmethod
    def load(cls, name: str, dtype: torch.dtype) -> Oracle:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
            return cls(name, dtype, {key: archive[key] for key in archive.files})

    @property
    def hyper(self) -> dict[str, Any]:
        return dict(json.loads(str(self.arrays["hyper"])))

    @property
    def split(self) -> Split:
        pairs, users = self.arrays["train_pairs"], len(self.arrays["scores"])
        return Split(users, len(self.arrays["image"]), Pairs(*np.ascontiguousarray(pairs.T)), EMPTY, EMPTY)

    @property
    def batch(self) -> Batch:
        return Batch(*(torch.from_numpy(self.arrays[key]).long() for key in ("users", "positives", "negatives")))

    @property
    def inputs(self) -> Inputs:
        """[text | image] with five neighbours per item, or the image only as one matrix; float32."""
        modalities = [self.arrays[key] for key in ("text", "image") if key in self.arrays]
        features = np.hstack(modalities)
        parts = tuple(m.shape[1] for m in modalities) if len(modalities) > 1 else ()
        edges = neighbours.find_neighbours(features, 5)
        return Inputs(self.split, torch.from_numpy(features), edges, torch.device("cpu"), parts)

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).to(self.dtype)

    def graph(self, name: str) -> Sparse:
        return Sparse(sp.csr_array(self.arrays[f"graph_{name}"]), dtype=self.dtype)

    def block(self, name: str = "user_item") -> Sparse:
        """Return the user-item block [U, I] of graph_<name>, in the format of a model."""
        n_users = self.split.n_users
        return Sparse(sp.csr_array(self.arrays[f"graph_{name}"][:n_users, n_users:]), dtype=self.dtype)

    def build(self, model: str, sources: dict[str, Source], **settings: object) -> Recommender:
        """Return our model with the reference's parameters, in this precision.

        In float64 the user-item graph is the saved one, if there is one: it was rounded to float32 before it was used.

        Args:
            model: its name in MODELS.
            sources: of every parameter of ours.
            settings: beside those that all files share.
        """
        params = MODELS[model].Params.model_validate({"dim": 16, "lr": 1e-3, "batch_size": 2048} | settings)
        inputs = self.inputs
        if self.dtype == torch.float64 and "graph_user_item" in self.arrays:
            inputs.__dict__["user_item"] = self.block()  # where cached_property keeps it
        network = MODELS[model](inputs, params)
        widen(network, self.dtype)
        self.sources = sources
        assert dict(network.named_parameters()).keys() == sources.keys()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                value = torch.from_numpy(np.ascontiguousarray(self._of(name, "param_"))).to(self.dtype)
                assert parameter.shape == value.shape, name
                parameter.copy_(value)
        return network

    def check(self, network: Recommender, terms: Mapping[str, Sequence[str]]) -> None:
        self.check_scores(network, "scores")
        self.check_loss(network, terms)
        self.check_gradients(network)
        self.check_adam(network)
        self.check_scores(network, "scores_after_adam")

    def check_loss(self, network: Recommender, terms: Mapping[str, Sequence[str]]) -> None:
        """Compare the weighted terms and their sum.

        Args:
            terms: each of our terms -> those of the reference that it sums; files without text only have the total.
        """
        loss = network.train().loss(self.batch)
        assert loss.keys() == terms.keys()
        if self.hyper.get("modalities") != "image only":
            assert {f"loss_{key}" for keys in terms.values() for key in keys} | {"loss_total"} == {
                key for key in self.arrays if key.startswith("loss_")
            }
            for name, keys in terms.items():
                self._close(loss[name], sum(self._expected(f"loss_{key}") for key in keys), name)
        self._close(sum(loss.values()), self._expected("loss_total"), "total")

    def check_gradients(self, network: Recommender) -> None:
        network.zero_grad()
        torch.stack(list(network.train().loss(self.batch).values())).sum().backward()
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                assert parameter.grad is None
                continue
            ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            self._close(ours, self._of(name, "grad_"), f"gradient of {name}", NOISE[self.dtype])

    def check_scores(self, network: Recommender, key: str = "scores", vectors: bool = False) -> None:
        """Compare user_vectors item_vectors^T in evaluation mode, and vectors that are in the reference's order."""
        with torch.no_grad():
            user, item = network.eval()()
        assert isinstance(user, Tensor)
        assert isinstance(item, Tensor)
        self._close(user @ item.T, self._expected(key), key)
        if vectors:
            self._close(user, self._expected("user_vectors"), "user vectors")
            self._close(item, self._expected("item_vectors"), "item vectors")

    def check_adam(
        self,
        network: Recommender,
        key: str = "losses_adam",
        before_step: Callable[[int], object] = lambda _: None,
        weight_decay: float = 0.0,
    ) -> None:
        """Take ten steps of Adam on the batch, as the training loop does, and compare the totals before each."""
        network.train()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=1e-3, weight_decay=weight_decay)
        totals = []
        for step in range(10):
            before_step(step)
            optimiser.zero_grad()
            total = torch.stack(list(network.loss(self.batch).values())).sum()
            total.backward()
            optimiser.step()
            totals.append(total.item())
        self._close(torch.tensor(totals, dtype=torch.float64), self._expected(key), key)

    def _of(self, ours: str, prefix: str) -> np.ndarray:
        source = self.sources[ours]

        def read(theirs: str) -> np.ndarray:
            for key in (f"{prefix}{theirs}", f"{prefix.replace('param_', '')}const_{theirs}"):
                if key in self.arrays:
                    return self.arrays[key] if prefix == "param_" else self._expected(key)
            raise KeyError(f"{self.name} has no {prefix}{theirs}")

        return read(source) if isinstance(source, str) else source(read)

    def _expected(self, key: str) -> np.ndarray:
        return self.arrays[f"f64_{key}" if self.dtype == torch.float64 else key]

    def _close(self, ours: Tensor, theirs: object, what: str, noise: float = 0.0) -> None:
        ours_, theirs_ = ours.detach().double().numpy(), np.asarray(theirs, np.float64)
        assert ours_.shape == theirs_.shape, what
        error, scale = np.abs(ours_ - theirs_).max(), np.abs(theirs_).max()
        limit = TOLERANCE[self.dtype] * scale + noise
        assert error <= limit, f"{self.name}, {what}: off by {error:.3g}, at most {limit:.3g} allowed"


def widen(value: Any, dtype: torch.dtype) -> Any:
    """Convert a network to a precision in place: parameters, and floats of its plain tensors and graphs."""
    if isinstance(value, Recommender):
        value.to(dtype)
        for module in value.modules():
            module.__dict__.update(widen({k: v for k, v in vars(module).items() if k[:1] != "_"}, dtype))
    elif isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and not value.requires_grad else value
    elif isinstance(value, dict):
        return {key: widen(entry, dtype) for key, entry in value.items()}
    elif isinstance(value, list | tuple):
        return getattr(value, "_make", type(value))(widen(entry, dtype) for entry in value)
    elif type(value).__module__.startswith("alignrec.pipeline.linalg"):  # a graph
        value.__dict__.update(widen(vars(value), dtype))
    return value
