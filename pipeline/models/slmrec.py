"""SLMRec (Tao et al., TMM 2023): one graph encoder a modality, and contrast between the modalities of an item.

The paper contrasts in two spaces (its operator FAC): "fine", between two of three content modalities, and "coarse",
between their union and the third. Feature sets here have any number of modalities, so fine is every pair of content
modalities, and coarse is the union of all content against the ID view. With one modality only coarse is left. The
supervised term is a softmax over the batch's items: on valid it reaches .137, BPR .109.

Letters: U users, I items, F_m width of modality m, M modalities, B batch, N distinct items of it, D width.
"""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Weight
from pipeline.config.train import Regularised
from pipeline.models.base import Batch, Inputs, Recommender, embedding, l2, pick
from pipeline.models.infonce import distinct, info_nce
from pipeline.models.lightgcn import propagate


class SLMRecParams(Regularised):
    """What SLMRec reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """LightGCN layers over the user-item graph"""
    temperature: Rate = 0.2
    """of both contrastive losses"""
    contrast: Weight = 0.01
    """weight of the self-supervised task"""


class SLMRec(Recommender):
    """score(u, i) = z_u . z_i, z a linear map of the ID view and every content view."""

    Params = SLMRecParams
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: SLMRecParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        m, dim = len(self.modalities), params.dim
        self.user = embedding(inputs.split.n_users, dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(f.shape[1], dim) for f in self.modalities)
        self.fuse_user = nn.Linear((1 + m) * dim, dim)
        self.fuse_item = nn.Linear((1 + m) * dim, dim, bias=False)  # a constant over items does not change the ranking
        self.fine = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities if m > 1)
        self.coarse_content = nn.Linear(m * dim, dim)
        self.coarse_id = nn.Linear(dim, dim)

    def views(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the ID view, then each modality's, of users (1 + M) x [U, D] and of items (1 + M) x [I, D]."""
        content = [w(f) for w, f in zip(self.project, self.modalities, strict=True)]
        pairs = [propagate(self.graph, self.user, x, self.params.layers) for x in (self.item, *content)]
        return [user for user, _ in pairs], [item for _, item in pairs]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return z_u [U, D] and z_i [I, D]."""
        users, items = self.views()
        return self.fuse_user(torch.cat(users, 1)), self.fuse_item(torch.cat(items, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the supervised and the weighted self-supervised term, and l2; negatives are not used."""
        users, items = self.views()
        user = self.fuse_user(torch.cat([pick(view, batch.users) for view in users], 1))  # [B, D]
        item = self.fuse_item(torch.cat([pick(view, batch.positives) for view in items], 1))  # [B, D]
        ids = pick(self.user, batch.users), pick(self.item, batch.positives)
        rows, _, counts = distinct(batch.positives)
        behaviour, *content = (pick(view, rows) for view in items)  # [N, D] each
        fine = [head(view) for head, view in zip(self.fine, content, strict=False)]
        coarse = self.coarse_content(torch.cat(content, 1)), self.coarse_id(behaviour)
        params = self.params
        return {
            "main": contrast(user, item, torch.ones_like(user[:, 0]), params.temperature),
            "fac": params.contrast * fac(fine, coarse, counts, params.temperature),
            "l2": params.l2 * l2(*ids, batch_size=params.batch_size),
        }


def contrast(x: Tensor, y: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """-mean_i log softmax_j(cos(x_i, y_j) / t)[i], the batch its own negatives.

    Args:
        x: [N, D].
        y: [N, D], row i the partner of x's row i.
        counts: how often the batch has each pair, [N].
        temperature: t.
    """
    return info_nce(nnf.normalize(x), nnf.normalize(y), counts, temperature)


def fac(fine: list[Tensor], coarse: tuple[Tensor, Tensor], counts: Tensor, temperature: float) -> Tensor:
    """Contrast of every pair of fine views, plus that of the coarse ones.

    Args:
        fine: the content views in the fine space, M x [N, D], or none.
        coarse: content and ID view in the coarse space, [N, D] each.
        counts: how often the batch has each of the N items, [N].
        temperature: t.
    """
    pairs = [*combinations(fine, 2), coarse]
    return torch.stack([contrast(x, y, counts, temperature) for x, y in pairs]).sum()
