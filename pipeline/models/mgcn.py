"""MGCN (Yu et al., MM 2023): content gated by behaviour, over item graphs. Letters in shapes: see base.py."""

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
from alignrec.pipeline.models.params import Contrastive, ItemGraph
from alignrec.pipeline.runtime.config import Weight


class MGCNParams(Contrastive, ItemGraph):
    contrast: Weight = 0.01  # weight of the contrastive loss between behaviour and content


class MGCN(Recommender):
    """score(u, i) = (e_id + e_mul)_u . (e_id + e_mul)_i; with a single modality, e_mul is its view."""

    Params = MGCNParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: MGCNParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph = params, inputs.user_item
        self.modalities = learn_features(inputs.modalities)  # trained, unlike in the paper
        graphs = (adjacency.item_graph(edges, inputs.split.n_items) for edges in inputs.modal_edges)
        self.item_item = [Sparse(graph, inputs.device) for graph in graphs]
        dim = params.dim
        self.user = xavier_uniform(inputs.split.n_users, dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], dim) for m in self.modalities)  # W1
        self.gate = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)  # W2
        self.fuser = Fuser(len(self.modalities), dim)

    def forward(self) -> tuple[Tensor, Tensor]:
        (id_user, id_item), (side_user, side_item) = self.views()
        return id_user + side_user, id_item + side_item

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        (id_user, id_item), (side_user, side_item) = self.views()
        h_user, h_item, params = id_user + side_user, id_item + side_item, self.params
        rows = batch.rows(h_user, h_item)
        (users, _, n_users), (items, _, n_items) = (
            distinct_items(batch.users),
            distinct_items(batch.positives),
        )
        of_users = cosine_nce(
            pick_rows(side_user, users), pick_rows(id_user, users), n_users, params.temperature
        )
        of_items = cosine_nce(
            pick_rows(side_item, items), pick_rows(id_item, items), n_items, params.temperature
        )
        return {
            "bpr": bpr(*rows),
            "l2": params.l2 * l2(*rows, batch_size=params.batch_size),
            "contrast": params.contrast * (of_users + of_items),
        }

    def views(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return e_id and e_mul, each for users, [U, D], and items, [I, D]."""
        behaviour = propagate(self.graph, self.user, self.item, self.params.layers)
        content: list[tuple[Tensor, Tensor]] = []
        for features, w1, w2, item_item in zip(
            self.modalities, self.project, self.gate, self.item_item, strict=True
        ):
            gated = self.item * torch.sigmoid(w2(w1(features)))  # [I, D]
            item = propagate_steps(item_item, gated, self.params.item_layers)
            content.append((self.graph.dot(item), item))
        users, items = (
            self.fuser([pair[side] for pair in content], behaviour[side]) for side in (0, 1)
        )
        return behaviour, (users, items)


class Fuser(nn.Module):
    """Behaviour-aware fuser: e_mul = (e_s + sum_m (e_m - e_s) * P_m) / (1 + M), e_s = sum_m softmax(scores)_m e_m.

    scores = q . tanh(W3 e_m + b3), P_m = sigmoid(W4 e_id + b4). A single modality is returned unchanged.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        several = modalities > 1
        self.attend = (
            nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
            if several
            else None
        )
        self.prefer = nn.ModuleList(nn.Linear(dim, dim) for _ in range(modalities) if several)  # W4

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
