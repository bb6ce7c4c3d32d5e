"""MENTOR (Xu et al., AAAI 2025): modalities side by side, their distributions aligned, noisy copies contrasted.

Letters: U users, I items, N either, F_m width of modality m, M modalities, D width.
"""

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share, Weight
from pipeline.models import freedom
from pipeline.models.base import Batch, Inputs, Recommender, drop, normal, pick, walk
from pipeline.models.dualgnn import Tower, base_2_bpr, drawn_weights, joined, taste_squares
from pipeline.models.gume import Sides, alignment, perturbed
from pipeline.models.infonce import cross_nce
from pipeline.models.params import Decay, Grid, Regularised


class MENTORParams(Regularised):
    """What MENTOR reads."""

    grid: ClassVar[Grid] = {
        "l2": [1e-2, 1e-3, 1e-4],
        "align": [0.1, 0.2, 0.3],
        "contrast": [1e-2, 1e-3, 1e-4],
        "temperature": [0.2, 0.4, 0.6, 0.8],
    }
    lr: Rate = 1e-3
    lr_decay: Decay = 1.0
    l2: Weight = 1e-3
    """weight of the tastes' and the weights' mean squares"""
    layers: Count = 2
    """layers over the user-item graph; the published code always takes 2"""
    item_layers: Count = 1
    """propagations over the item graph; 0: none"""
    first: Share = 0.9
    """weight of the first modality's item graph; the others share the rest"""
    align: Weight = 0.1
    """weight of the distance between distributions"""
    mask: Weight = 1.5
    """weight of the masked term, which in the published code trains nothing"""
    drop: Share = 0.5
    """share of a vector that the masked term lacks"""
    contrast: Weight = 1e-3
    """weight of the contrast of noisy copies"""
    temperature: Rate = 0.2
    """of the contrast"""


class MENTOR(Recommender):
    """score(u, i) = x_u . (x_i + S x_i), x the modalities' towers side by side, the users' weighed.

    The published code ranks by vectors from before the last step of Adam; here they are the current ones.
    """

    Params = MENTORParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: MENTORParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        self.item_item = freedom.mixed(inputs, params.first)  # [I, I]
        n_users, dim, widths = inputs.split.n_users, params.dim, [f.shape[1] for f in self.modalities]
        self.towers = nn.ModuleList(Tower(n_users, width, dim) for width in widths)
        self.noisy = nn.ModuleList(Tower(n_users, width, dim) for _ in range(2) for width in widths)
        self.ids = normal(inputs.split.n_items, dim)  # [I, D]
        self.id_tower = Tower(n_users, dim, dim)
        self.attention = drawn_weights(n_users, max(len(widths), 2))
        self.read = nn.Linear(len(widths) * dim, len(widths) * dim).requires_grad_(False)

    def views(self) -> list[Sides]:
        """Return each modality's walk, M x [U, D] and [I, D]."""
        layers = self.params.layers
        return [tower(self.graph, f, layers) for tower, f in zip(self.towers, self.modalities, strict=True)]

    def joined(self, views: list[Sides]) -> Sides:
        """Return views side by side, the users' weighed, the items' over the item graph."""
        user, item = joined(views, self.attention)
        return user, self._convolved(item)

    def _convolved(self, item: Tensor) -> Tensor:
        return item + walk(self.item_item, item, self.params.item_layers)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, M D] and [I, M D]."""
        return self.joined(self.views())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, l2, and the aligning, masked and contrastive terms, weighted."""
        params, views = self.params, self.views()
        users, items = main = self.joined(views)
        tastes = taste_squares([tower.taste for tower in self.towers], batch)  # type: ignore[misc]
        return {
            "bpr": base_2_bpr(pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)),
            "l2": params.l2 * torch.stack([tastes, self.attention.square().mean()]).sum(),
            "align": params.align * self._align(main, views),
            "mask": params.mask * torch.stack([self._mask(side) for side in main]).sum(),
            "contrast": params.contrast * self._contrast(),
        }

    def _align(self, main: Sides, views: list[Sides]) -> Tensor:
        """Return the distances between the main vectors, those of IDs and those of each modality, pair by pair.

        A single view stands twice, side by side and unweighted: its mean and variance are those of one.
        """
        ids = self.id_tower(self.graph, self.ids, self.params.layers)
        alone = [torch.cat([user, user, *[self._convolved(item)] * 2]) for user, item in [ids, *views]]
        return alignment([torch.cat(main), *alone])

    @torch.no_grad()
    def _mask(self, x: Tensor) -> Tensor:
        """Return 1 - mean cos(thinned x, a map of x): without gradient, as published."""
        return 1 - nnf.cosine_similarity(drop(x, self.params.drop), self.read(x), dim=1).mean()

    def _contrast(self) -> Tensor:
        """Return InfoNCE between two noisy copies, over all users and over all items."""
        m, layers = len(self.modalities), self.params.layers
        copies = []
        for n in range(2):
            towers = list(self.noisy)[n * m : (n + 1) * m]
            pairs = zip(towers, self.modalities, strict=True)
            copies.append(self.joined([self._noisy_walk(tower.start(f), layers) for tower, f in pairs]))  # type: ignore[operator]
        return torch.stack([everyone(x, y, self.params.temperature) for x, y in zip(*copies, strict=True)]).sum()

    def _noisy_walk(self, start: Sides, layers: int) -> Sides:
        """Return the sum of layers 0 .. L, each but the first perturbed."""
        user, item = users, items = start
        for _ in range(layers):
            user, item = self.graph.dot(item), self.graph.T.dot(user)
            user, item = perturbed(user), perturbed(item)
            users, items = users + user, items + item
        return users, items


def everyone(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """-mean_i log softmax_j(cos(x_i, y_j) / t)[i] over all rows of [N, ..], in blocks of them."""
    rows = torch.arange(len(x), device=x.device)
    return cross_nce(nnf.normalize(x), nnf.normalize(y), rows, temperature) / len(x)
