"""MGCN (Yu et al., MM 2023): content gated by behaviour, over item graphs.

Letters in shapes: see base.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    l2,
    learn_features,
    pick_rows,
    propagate_steps,
    xavier_uniform,
)
from alignrec.pipeline.models.infonce import cosine_nce, distinct_items
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import MGCNParams


class View(NamedTuple):
    """Vectors of users, [U, D], and items, [I, D]."""

    user: Tensor
    item: Tensor


class MGCN(Recommender):
    """score(u, i) = (e_id + e_mul)_u . (e_id + e_mul)_i; of one modality, e_mul is its view."""

    Params = MGCNParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: MGCNParams) -> None:
        super().__init__(inputs, params)
        n_users = inputs.split.n_users
        n_items = inputs.split.n_items
        dim = params.dim
        self.params = params
        self.graph = inputs.user_item
        self.modalities = learn_features(inputs.modalities)  # trained, unlike in the paper
        graphs = [adjacency.item_graph(edges, n_items) for edges in inputs.modal_edges]
        self.item_item = [Sparse(graph, inputs.device) for graph in graphs]

        self.user = xavier_uniform(n_users, dim)  # [U, D]
        self.item = xavier_uniform(n_items, dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], dim) for m in self.modalities)  # W1
        self.gate = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)  # W2
        self.fuser = Fuser(len(self.modalities), dim)

    def forward(self) -> tuple[Tensor, Tensor]:
        behaviour, content = self.views()
        return behaviour.user + content.user, behaviour.item + content.item

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        params = self.params
        behaviour, content = self.views()
        h_user = behaviour.user + content.user
        h_item = behaviour.item + content.item
        rows = batch.rows(h_user, h_item)
        of_users = self.contrast(content.user, behaviour.user, batch.users)
        of_items = self.contrast(content.item, behaviour.item, batch.positives)
        return {
            "bpr": bpr(*rows),
            "l2": params.l2 * l2(*rows, batch_size=params.batch_size),
            "contrast": params.contrast * (of_users + of_items),
        }

    def contrast(self, content: Tensor, behaviour: Tensor, ids: Tensor) -> Tensor:
        """InfoNCE, content -> behaviour, of the distinct users or items `ids`, int64 [B]."""
        rows, _, counts = distinct_items(ids)
        content = pick_rows(content, rows)
        behaviour = pick_rows(behaviour, rows)
        return cosine_nce(content, behaviour, counts, self.params.temperature)

    def views(self) -> tuple[View, View]:
        """Return e_id and e_mul."""
        behaviour = View(*propagate(self.graph, self.user, self.item, self.params.layers))

        content = []
        modalities = zip(self.modalities, self.project, self.gate, self.item_item, strict=True)
        for features, w1, w2, item_item in modalities:
            gated = self.item * torch.sigmoid(w2(w1(features)))  # [I, D]
            item = propagate_steps(item_item, gated, self.params.item_layers)
            content.append(View(self.graph.dot(item), item))

        user = self.fuser([view.user for view in content], behaviour.user)
        item = self.fuser([view.item for view in content], behaviour.item)
        return behaviour, View(user, item)


class Fuser(nn.Module):
    """Behaviour-aware fuser: e_mul = (e_s + sum_m (e_m - e_s) * P_m) / (1 + M).

    e_s = sum_m softmax(scores)_m e_m, scores = q . tanh(W3 e_m + b3), P_m = sigmoid(W4 e_id + b4).
    A single modality is returned unchanged.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        fuses = modalities > 1
        self.attend = attention_scores(dim) if fuses else None
        self.prefer = nn.ModuleList(nn.Linear(dim, dim) for _ in range(modalities) if fuses)  # W4

    def forward(self, content: list[Tensor], behaviour: Tensor) -> Tensor:
        """Fuse e_m, M x [N, D], given e_id, [N, D]; returns e_mul, [N, D]."""
        if self.attend is None:
            return content[0]

        scores = torch.cat([self.attend(view) for view in content], 1)  # [N, M]
        gates = [torch.sigmoid(w(behaviour)) for w in self.prefer]  # M x [N, D]
        views = torch.stack(content)  # [M, N, D]
        shared = (scores.softmax(1).T[:, :, None] * views).sum(0)  # [N, D]
        specific = (views - shared) * torch.stack(gates)  # [M, N, D]
        # as in the reference; the paper adds the shared part to the mean of the specific parts
        return (shared + specific.sum(0)) / (1 + len(views))


def attention_scores(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
