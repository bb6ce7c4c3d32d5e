"""MMGCN (Wei et al., MM 2019): one graph convolution per modality over the user-item graph.

Letters: U users, I items, F_m width of modality m, B batch, D width, L layers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate
from pipeline.config.train import Regularised
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick
from pipeline.ops.sparse import Sparse


class MMGCNParams(Regularised):
    """What MMGCN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """graph convolutions of each modality"""


class MMGCN(Recommender):
    """score(u, i) = u* . i*, each the sum over modalities of the last layer."""

    Params = MMGCNParams
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: MMGCNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size = params.l2, params.batch_size
        seen = adjacency.seen(inputs.split)
        self.to_user = Sparse(adjacency.mean(seen), inputs.device)  # [U, I]
        self.to_item = Sparse(adjacency.mean(seen.T.tocsr()), inputs.device)  # [I, U]
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D], u_id
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D], i_id
        self.modalities = inputs.modalities
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.taste = nn.ParameterList(embedding(inputs.split.n_users, params.dim) for _ in self.modalities)
        self.layers = nn.ModuleList(Layer(params.dim) for _ in range(len(self.modalities) * params.layers))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, D] and i* [I, D]."""
        users, items = torch.zeros_like(self.user), torch.zeros_like(self.item)
        depth = len(self.layers) // len(self.modalities)
        for m, (features, taste) in enumerate(zip(self.modalities, self.taste, strict=True)):
            user, item = taste, self.project[m](features)  # [U, D], [I, D]
            for layer in self.layers[m * depth : (m + 1) * depth]:
                user, item = (
                    layer(self.to_user, item, user, self.user),
                    layer(self.to_item, user, item, self.item),
                )
            users, items = users + user, items + item
        return users, items

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}


class Layer(nn.Module):
    """One layer of one modality; users and items share it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.message = nn.Linear(dim, dim, bias=False)  # W1
        self.own = nn.Linear(dim, dim, bias=False)  # W2
        self.merge = nn.Linear(dim, dim, bias=False)  # W3

    def forward(self, mean: Sparse, others: Tensor, own: Tensor, ids: Tensor) -> Tensor:
        """Return combination(aggregation(others), own, ids), [N, D].

        Args:
            mean: each of the N nodes' mean over its neighbours, [N, N'].
            others: the vectors of the other side in the layer before, [N', D].
            own: the nodes' vectors in the layer before, [N, D].
            ids: the nodes' ID embeddings, [N, D].
        """
        return combination(aggregation(mean.dot(self.message(others))), self.own(own), ids, self.merge)


def aggregation(mean: Tensor) -> Tensor:
    """h = LeakyReLU(1/|N| sum_{j in N} W1 j), given the mean."""
    return nnf.leaky_relu(mean)


def combination(h: Tensor, own: Tensor, ids: Tensor, merge: nn.Linear) -> Tensor:
    """g_ele = LeakyReLU(W3 h + u^), u^ = LeakyReLU(W2 u) + u_id, given W2 u as `own`."""
    return nnf.leaky_relu(merge(h) + nnf.leaky_relu(own) + ids)
