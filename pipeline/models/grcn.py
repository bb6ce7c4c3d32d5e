"""GRCN (Wei et al., MM 2020): content weighs each interaction, a soft pruning of the user-item graph.

Letters: U users, I items, F_m width of modality m, M modalities, E train pairs, B batch, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate
from pipeline.config.train import Regularised
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick
from pipeline.ops.edges import SparsityPattern


class GRCNParams(Regularised):
    """What GRCN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """graph convolutions over the refined graph"""
    routings: Positive = 3
    """iterations of neighbour routing T"""


class GRCN(Recommender):
    """score(u, i) = [e_u | p_u1 | ..] . [e_i | q_i1 | ..]: IDs on the refined graph beside prototypes and content."""

    Params = GRCNParams
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: GRCNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.layers, self.routings = (
            params.l2,
            params.batch_size,
            params.layers,
            params.routings,
        )
        split = inputs.split
        self.edges = SparsityPattern(
            split.train.users, split.train.items, (split.n_users, split.n_items), inputs.device
        )
        self.user = embedding(split.n_users, params.dim)  # [U, D]
        self.item = embedding(split.n_items, params.dim)  # [I, D]
        self.modalities = inputs.modalities
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.prototype = nn.ParameterList(embedding(split.n_users, params.dim) for _ in self.modalities)
        self.user_trust = nn.Parameter(torch.ones(split.n_users, len(self.modalities)))  # [U, M]
        self.item_trust = nn.Parameter(torch.ones(split.n_items, len(self.modalities)))  # [I, M]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, D (1 + M)] and [I, D (1 + M)]."""
        content = [nnf.leaky_relu(w(f)) for w, f in zip(self.project, self.modalities, strict=True)]  # M x [I, D]
        prototypes = [
            route(self.edges, p, c, self.routings) for p, c in zip(self.prototype, content, strict=True)
        ]  # M x [U, D]
        affinity = [self.edges.dots(p, c) for p, c in zip(prototypes, content, strict=True)]  # M x [E]
        to_user = refine(self.edges, affinity, self.user_trust)  # [E]
        to_item = refine(self.edges.T, affinity, self.item_trust)  # [E]
        user: Tensor = self.user
        item: Tensor = self.item
        users, items = user, item
        for _ in range(self.layers):
            user, item = self.edges.product(to_user, item), self.edges.T.product(to_item, user)
            users, items = users + user, items + item
        return torch.cat([users, *prototypes], 1), torch.cat([items, *content], 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}


def route(edges: SparsityPattern, prototype: Tensor, content: Tensor, iterations: int) -> Tensor:
    """Neighbour routing: T iterations p <- norm(p + sum_{i in N_u} softmax_{N_u}(p . q_i) q_i).

    Args:
        edges: the train pairs, rows are users.
        prototype: p of one modality, [U, D].
        content: q, the items' projected features, [I, D].
        iterations: T.
    """
    p = nnf.normalize(prototype)
    for _ in range(iterations):
        p = nnf.normalize(p + edges.product(edges.softmax(edges.dots(p, content)), content))
    return p


def refine(edges: SparsityPattern, affinity: list[Tensor], trust: Tensor) -> Tensor:
    """Soft pruning: s_e = ReLU(max_m c_m softmax_N(a_m)_e), N the edges of e's row.

    Args:
        edges: rows are the nodes that aggregate.
        affinity: p . q of every edge, M x [E].
        trust: c, how far a node relies on each modality, [rows, M].
    """
    scores = [edges.softmax(a) * edges.of_row(trust[:, m]) for m, a in enumerate(affinity)]  # M x [E]
    return torch.stack(scores).amax(0).relu()
