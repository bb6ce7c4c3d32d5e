"""COHESION (Xu et al., SIGIR 2025): IDs fused into each modality before its walk, modalities weighed in the loss after.

Letters: U users, I items, F_m width of modality m, M modalities, K neighbours, B batch, D width.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate, Share, Weight
from pipeline.models import freedom
from pipeline.models.base import Batch, Inputs, Recommender, normal, pick, walk
from pipeline.models.dualgnn import Tower, UserGraph, drawn_weights, taste_squares
from pipeline.models.params import Decay, Grid, Regularised


class COHESIONParams(Regularised):
    """What COHESION reads."""

    grid: ClassVar[Grid] = {
        "lr": [1e-3, 1e-4],
        "l2": [1e-1, 1e-2, 1e-3, 1e-4],
        "layers": [1, 2, 3, 4],
        "neighbours": [10, 20, 40],
    }
    lr: Rate = 1e-3
    lr_decay: Decay = 1.0
    l2: Weight = 1e-3
    """weight of the tastes' and the weights' mean squares"""
    layers: Count = 2
    """layers over the user-item graph"""
    item_layers: Count = 1
    """propagations over the item graph; 0: none"""
    neighbours: Positive = 40
    """users with the most items in common, whose vectors a user aggregates"""
    first: Share = 0.9
    """weight of the first modality's item graph; the others share the rest"""


class COHESION(Recommender):
    """score(u, i) = u* . i*, views of the IDs and of each modality side by side, over users and over items.

    Gradients do not pass through the view of the IDs, as published: its tower stays as it was drawn, and the IDs learn
    where they are fused into modalities. The published code ranks by vectors from before the last step of Adam
    and by that epoch's repeats of neighbours; here vectors are the current ones, and the repeats are drawn once.
    """

    Params = COHESIONParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: COHESIONParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        self.users = UserGraph(inputs, params.neighbours)
        self.item_item = freedom.mixed(inputs, params.first)  # [I, I]
        n_users, n_items = inputs.split.n_users, inputs.split.n_items
        self.ids = normal(n_items, params.dim)  # [I, D]
        self.id_tower = Tower(n_users, params.dim, params.dim).requires_grad_(False)
        self.towers = nn.ModuleList(Tower(n_users, f.shape[1], params.dim) for f in self.modalities)
        self.attention = drawn_weights(n_users, max(len(self.modalities), 2))

    def start_epoch(self) -> None:
        """Draw which neighbours are repeated in this epoch."""
        self.users.redraw()

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, (1 + M) D] and i* [I, (1 + M) D]."""
        views = [self._walk(self.id_tower, self.ids.detach(), self.ids.detach())]
        views += [self._walk(tower, self.ids, f) for tower, f in zip(self.towers, self.modalities, strict=True)]  # type: ignore[arg-type]
        user, item = (torch.cat([view[side] for view in views], 1) for side in (0, 1))
        heard = self.users.heard(user, self.training)
        return user + heard, item + walk(self.item_item, item, self.params.item_layers)

    def _walk(self, tower: Tower, ids: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of layers, each row weighed by its cosine with its row in layer 0, [U, D] and [I, D]."""
        item = ((ids.square() + tower.encode(features).square()) / 2 + 1e-8).sqrt()  # the early fusion
        first = user, item = nnf.normalize(tower.taste), nnf.normalize(item)
        users, items = first
        for _ in range(self.params.layers):
            sent = self.graph.dot(item), self.graph.T.dot(user)
            user, item = (nnf.cosine_similarity(x, x0)[:, None] * x for x, x0 in zip(sent, first, strict=True))
            users, items = users + user, items + item
        return users, items

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr of the weighed views, and l2 of the tastes and of the weights."""
        users, items = self()
        difference = pick(items, batch.positives) - pick(items, batch.negatives)  # [B, (1 + M) D]
        ranked = (pick(users, batch.users) * difference).unflatten(1, (-1, self.params.dim)).sum(2)  # [B, 1 + M]
        weights = 1 - ranked.detach().softmax(1)
        tastes = taste_squares([tower.taste for tower in self.towers], batch)  # type: ignore[misc]
        return {
            "bpr": -nnf.logsigmoid((weights * ranked).sum(1)).mean() / math.log(2),
            "l2": self.params.l2 * torch.stack([tastes, self.attention.square().mean()]).sum(),
        }
