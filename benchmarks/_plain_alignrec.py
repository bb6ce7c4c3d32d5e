"""AlignRec in plain PyTorch: the reference for time and losses in benchmarks/train.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.dataset import split
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from benchmarks._turns import Turn, timed


class Epoch(NamedTuple):
    """Timings of an epoch, in wall seconds, and its results."""

    train: float  # including sampling
    sample: float  # negative sampling
    rank: float
    cpu: float  # CPU seconds of training and ranking
    losses: list[float]  # loss of each batch
    recall: float  # valid Recall@20 after the epoch

    @classmethod
    def of(cls, sample: Turn[Any], train: Turn[list[float]], rank: Turn[float]) -> Epoch:
        """Combine the timings of three parts; `train` excludes sampling."""
        cpu = sample.cpu + train.cpu + rank.cpu
        return cls(sample.wall + train.wall, sample.wall, rank.wall, cpu, train.result, rank.result)

    @property
    def turn(self) -> Turn[Epoch]:
        """Return the epoch as a turn, without the time between its parts."""
        return Turn(self.train + self.rank, self.cpu, self)


def run(model: AlignRec, inputs: Inputs, settings: AlignRecParams, batches: list[Batch]) -> Epoch:
    """Train on `batches`, then rank valid."""
    parts, device = inputs.split, inputs.device
    n_users, n_items = parts.n_users, parts.n_items
    block = adjacency.normalise_by_degrees(adjacency.interaction_matrix(parts)).tocoo()
    rows, columns = block.coords
    both = np.stack(
        [np.concatenate([rows, columns + n_users]), np.concatenate([columns + n_users, rows])]
    )
    torch.sparse.check_sparse_tensor_invariants.disable()
    whole = torch.sparse_coo_tensor(torch.from_numpy(both), torch.from_numpy(np.tile(block.data, 2)),
                                    (n_users + n_items,) * 2, device=device).coalesce()  # fmt: skip
    at = torch.from_numpy(np.stack(block.coords))
    user_item = torch.sparse_coo_tensor(
        at, torch.from_numpy(block.data), block.shape, device=device
    ).coalesce()
    item_graph = adjacency.item_graph(inputs.edges, n_items).tocoo()
    at, data = torch.from_numpy(np.stack(item_graph.coords)), torch.from_numpy(item_graph.data)
    item_item = torch.sparse_coo_tensor(at, data, item_graph.shape, device=device).coalesce()
    taken: list[set[int]] = [set() for _ in range(n_users)]
    for u, i in zip(parts.train.users.tolist(), parts.train.items.tolist(), strict=True):
        taken[u].add(i)

    def forward() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        layers = [torch.cat([model.user, model.item])]
        for _ in range(settings.layers):
            layers.append(torch.sparse.mm(whole, layers[-1]))
        id_user, id_item = torch.stack(layers, 1).mean(1).split([n_users, n_items])
        gate = torch.sigmoid(model.w2(model.w1(model.features)))
        mm_item = torch.sparse.mm(item_item, model.item * gate)
        return id_user, id_item, torch.sparse.mm(user_item, mm_item), mm_item

    def loss(batch: Batch) -> Tensor:
        id_user, id_item, mm_user, mm_item = forward()
        h_user, h_item = id_user + mm_user, id_item + mm_item
        u, p, n = h_user[batch.users], h_item[batch.positives], h_item[batch.negatives]
        rank = -nnf.logsigmoid((u * p).sum(1) - (u * n).sum(1)).mean()
        norm = (
            settings.l2
            * (u.pow(2).sum() + p.pow(2).sum() + n.pow(2).sum())
            / 2
            / settings.batch_size
        )
        e = mm_item[batch.positives]
        align = _cca(e, id_item[batch.positives], settings.temperature)
        align = align + _cca(mm_user[batch.users], id_user[batch.users], settings.temperature)
        c = nnf.normalize(model.features.detach()[batch.positives])
        reg = torch.linalg.norm(e @ e.T - c @ c.T) / len(e)
        uia = 1 - nnf.cosine_similarity(u, p).mean()
        return rank + norm + settings.cca * align + settings.reg * reg + settings.uia * uia

    sample = timed(_negatives, parts, taken)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    train = timed(steps, optimiser, batches, loss)
    with torch.no_grad():
        rank = timed(lambda: _recall(forward(), parts, taken))
    return Epoch.of(sample, train, rank)


def _cca(content: Tensor, ids: Tensor, temperature: float) -> Tensor:
    logits = nnf.normalize(content) @ nnf.normalize(ids).T / temperature
    return -torch.log_softmax(logits, 1).diagonal().mean()


def _negatives(parts: split.Split, taken: list[set[int]]) -> list[int]:
    rng = np.random.default_rng(0)
    negatives = []
    for user in parts.train.users.tolist():
        item = int(rng.integers(parts.n_items))
        while item in taken[user]:
            item = int(rng.integers(parts.n_items))
        negatives.append(item)
    return negatives


def _recall(branches: tuple[Tensor, ...], parts: split.Split, taken: list[set[int]]) -> float:
    user, item = branches[0] + branches[2], branches[1] + branches[3]
    wanted: dict[int, set[int]] = {}
    for u, i in zip(parts.valid.users.tolist(), parts.valid.items.tolist(), strict=True):
        wanted.setdefault(u, set()).add(i)
    users, recalls = list(wanted), []
    for at in range(0, len(users), 4096):
        block = users[at : at + 4096]
        scores = user[block] @ item.T
        for row, u in enumerate(block):
            scores[row, list(taken[u])] = -torch.inf
        for u, top in zip(block, torch.topk(scores, 20)[1].tolist(), strict=True):
            recalls.append(len(wanted[u] & set(top)) / len(wanted[u]))
    return float(np.mean(recalls))


def steps(
    optimiser: torch.optim.Optimizer, batches: list[Batch], loss: Callable[[Batch], Tensor]
) -> list[float]:
    losses = []
    for batch in batches:
        optimiser.zero_grad()
        value = loss(batch)
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    return losses
