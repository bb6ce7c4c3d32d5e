"""DRAGON (Zhou et al., ECAI 2023): modalities side by side, over a user graph and a frozen item graph.

Letters: U users, I items, M modalities, K neighbours, D width.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate, Share
from pipeline.models import freedom
from pipeline.models.base import Batch, Inputs, Recommender, pick, walk
from pipeline.models.dualgnn import Tower, UserGraph, base_2_bpr, drawn_weights, joined, taste_squares
from pipeline.models.params import Decay, Grid, Regularised


class DRAGONParams(Regularised):
    """What DRAGON reads."""

    grid: ClassVar[Grid] = {"lr": [1e-3, 1e-4], "l2": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]}
    lr: Rate = 1e-3
    lr_decay: Decay = 1.0
    layers: Count = 2
    """LightGCN layers over the user-item graph; the published code always takes 2"""
    item_layers: Count = 1
    """propagations over the item graph; 0: none"""
    neighbours: Positive = 40
    """users with the most items in common, whose vectors a user aggregates"""
    first: Share = 0.9
    """weight of the first modality's item graph; the others share the rest"""


class DRAGON(Recommender):
    """score(u, i) = u* . i*, views side by side: the user's weighed and propagated over users, the item's over items.

    The published code ranks by vectors from before the last step of Adam and by that epoch's repeats of neighbours;
    here vectors are the current ones, and the repeats are drawn once.
    """

    Params = DRAGONParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: DRAGONParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        self.users = UserGraph(inputs, params.neighbours)
        self.item_item = freedom.mixed(inputs, params.first)  # [I, I]
        n_users = inputs.split.n_users
        self.towers = nn.ModuleList(Tower(n_users, f.shape[1], params.dim) for f in self.modalities)
        self.attention = drawn_weights(n_users, max(len(self.modalities), 2))  # as published: two, also of a single one

    def start_epoch(self) -> None:
        """Draw which neighbours are repeated in this epoch."""
        self.users.redraw()

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, M D] and i* [I, M D]."""
        layers = self.params.layers
        views = [tower(self.graph, f, layers) for tower, f in zip(self.towers, self.modalities, strict=True)]
        user, item = joined(views, self.attention)
        heard = self.users.heard(user, self.training)
        return user + heard, item + walk(self.item_item, item, self.params.item_layers)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the tastes and of the weights."""
        users, items = self()
        tastes = taste_squares([tower.taste for tower in self.towers], batch)  # type: ignore[misc]
        return {
            "bpr": base_2_bpr(pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)),
            "l2": self.params.l2 * torch.stack([tastes, self.attention.square().mean()]).sum(),
        }
