"""LATTICE (Zhang et al., MM 2021): an item graph that is learned from each modality's features.

Neighbours are searched once an epoch. Their similarities are computed in every batch from the projected features,
so the graph is learned without an I x I matrix.

Letters: I items, F_m width of modality m, M modalities, K neighbours, E = I K edges, B batch, D width.
"""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share
from pipeline.config.train import Regularised
from pipeline.graph import neighbours
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick
from pipeline.models.lightgcn import propagate
from pipeline.ops.edges import SparsityPattern


class LATTICEParams(Regularised):
    """What LATTICE reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """LightGCN layers over the user-item graph"""
    item_layers: Count = 1
    """propagations over the item graph; 0: none"""
    skip: Share = 0.7
    """share of the fixed graph in the sum with the learned one, lambda"""


class LATTICE(Recommender):
    """score(u, i) = x_u . (x_i + h_i / |h_i|), x from LightGCN, h the item's ID after the item graph."""

    Params = LATTICEParams
    needs: ClassVar[frozenset[str]] = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: LATTICEParams) -> None:
        super().__init__(inputs, params)
        self.params, self.device, self.modalities = params, inputs.device, inputs.modalities
        self.user_item = inputs.user_item
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.importance = nn.Parameter(torch.zeros(len(self.modalities)))  # softmax of it: alpha
        self.k = max(int(table["rank"].to_numpy().max()) for table in inputs.modal_edges) + 1
        self.fixed = [self._edges(table) for table in inputs.modal_edges]
        with torch.no_grad():
            self.fixed_weights = [weights(e, f) for e, f in zip(self.fixed, self.modalities, strict=True)]  # M x [E]
        self.learned: list[SparsityPattern] = []

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Search the neighbours by the current projected features."""
        tables = (neighbours.neighbours(x.cpu().numpy(), self.k) for x in self.projected())
        self.learned = [self._edges(table) for table in tables]

    def projected(self) -> list[Tensor]:
        """Return e~_m = W_m e_m + b_m, M x [I, D]."""
        return [w(f) for w, f in zip(self.project, self.modalities, strict=True)]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, D] and [I, D]; outside training the neighbours are searched again."""
        if not self.training or not self.learned:
            self.start_epoch()
        learned = [weights(e, x) for e, x in zip(self.learned, self.projected(), strict=True)]  # M x [E]
        h: Tensor = self.item
        for _ in range(self.params.item_layers):
            h = self._convolve(h, learned)
        user, item = propagate(self.user_item, self.user, self.item, self.params.layers)
        return user, item + nnf.normalize(h)

    def _convolve(self, h: Tensor, learned: list[Tensor]) -> Tensor:
        """A h, A = sum_m alpha_m (lambda S_m + (1 - lambda) A_m)."""
        alpha, skip = self.importance.softmax(0), self.params.skip
        terms = [
            alpha[m] * (skip * self.fixed[m].product(self.fixed_weights[m], h)
                        + (1 - skip) * self.learned[m].product(learned[m], h))
            for m in range(len(learned))
        ]  # fmt: skip
        return torch.stack(terms).sum(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the unpropagated rows that the batch touches."""
        users, items = self()
        ids = pick(self.user, batch.users), pick(self.item, batch.positives), pick(self.item, batch.negatives)
        return {
            "bpr": bpr(pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)),
            "l2": self.params.l2 * l2(*ids, batch_size=self.params.batch_size),
        }

    def _edges(self, table: pa.Table) -> SparsityPattern:
        n = len(self.item)
        return SparsityPattern(table["item_id"].to_numpy(), table["neighbour_id"].to_numpy(), (n, n), self.device)


def weights(edges: SparsityPattern, features: Tensor) -> Tensor:
    """D^-1/2 S D^-1/2 with S_ij = max(cos(f_i, f_j), 0) on the edges, D its row sums, [E].

    Args:
        edges: the K nearest items of each.
        features: of one modality, as they are or projected, [I, .].
    """
    direction = nnf.normalize(features)
    similarity = edges.dots(direction, direction).relu()  # [E]
    degree = edges.product(similarity, similarity.new_ones(len(features), 1))[:, 0]  # [I]
    root = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
    return edges.of_row(root) * similarity * edges.T.of_row(root)
