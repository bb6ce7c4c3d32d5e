"""DualGNN (Wang et al., TMM 2023): a user's weights of the modalities pass over a graph of users with common items.

Letters: U users, I items, F_m width of modality m, M modalities, K neighbours, B batch, D width.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate
from pipeline.config.train import Regularised
from pipeline.interactions import cooccurrence
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick
from pipeline.models.lightgcn import propagate
from pipeline.ops.sparse import Sparse


class DualGNNParams(Regularised):
    """What DualGNN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """LightGCN layers over the user-item graph"""
    neighbours: Positive = 10
    """users with the most items in common, whose vectors a user aggregates"""


class DualGNN(Recommender):
    """score(u, i) = u* . i*, i* the sum over modalities, u* an attentive sum propagated over the user graph."""

    Params = DualGNNParams
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: DualGNNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.layers = params.l2, params.batch_size, params.layers
        self.graph = inputs.user_item
        self.user_user = Sparse(co_occurrence(adjacency.seen(inputs.split), params.neighbours), inputs.device)  # [U, U]
        self.modalities = inputs.modalities
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.taste = nn.ParameterList(embedding(inputs.split.n_users, params.dim) for _ in self.modalities)
        self.attention = nn.Parameter(torch.zeros(inputs.split.n_users, len(self.modalities)))  # [U, M]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, D] and i* [I, D]."""
        users, items = [], []
        for features, project, taste in zip(self.modalities, self.project, self.taste, strict=True):
            user, item = propagate(self.graph, taste, project(features), self.layers)  # the mean of the layers ...
            users.append(user * (self.layers + 1))  # ... the paper sums them
            items.append(item * (self.layers + 1))
        user = attentive_sum(users, self.attention)  # [U, D]
        return user + self.user_user.dot(user), torch.stack(items).sum(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}


def attentive_sum(users: list[Tensor], attention: Tensor) -> Tensor:
    """u_mul = sum_m alpha_um u_m, alpha_u a softmax over the modalities (the paper's attentively sum construction).

    Args:
        users: u_m, M x [U, D].
        attention: a user's own parameters, [U, M].
    """
    alpha = attention.softmax(1)
    return torch.stack([alpha[:, m : m + 1] * user for m, user in enumerate(users)]).sum(0)


def co_occurrence(seen: sp.csr_array, k: int) -> sp.csr_array:
    """Return the user graph, float32 [U, U]: softmax of the numbers of common items over each user's K nearest users.

    Equal numbers are kept by ascending user. Blocked, so that no U x U matrix is held.

    Args:
        seen: R, float32 [U, I].
        k: K.
    """
    blocks = []
    for _, counts in cooccurrence.cooccurrences(seen):
        kept = cooccurrence.top_k(counts, k)
        row = cooccurrence.rows(kept)
        kept.data = np.exp(kept.data - kept.max(axis=1).toarray().ravel()[row])
        blocks.append(adjacency.mean(kept))
    return sp.csr_array(sp.vstack(blocks, format="csr"))
