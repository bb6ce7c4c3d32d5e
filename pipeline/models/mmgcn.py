"""MMGCN (Wei et al., MM 2019): a graph convolution per modality.

W_m is the input width of modality m. Other letters in shapes: see base.py.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    normal_pair,
    pair_squares,
    xavier_normal,
)
from alignrec.pipeline.models.params import Multimodal

# Unlike the paper, the reference implementation averages modalities, concatenates h and u^, has
# biases and three layers, starts with rows of length 1, projects only the last modality, never
# trains its tables of IDs and tastes, and penalises the mean squares of the tables (l2).
PROJECTED_WIDTH = 256  # of the last modality
LAYERS_PER_MODALITY = 3  # graph convolutions per modality


class MMGCN(Recommender):
    """score(u, i) = u* . i*, each the mean over modalities of their last layers."""

    Params = Multimodal
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Multimodal) -> None:
        super().__init__(inputs, params)
        n_users = inputs.split.n_users
        n_items = inputs.split.n_items
        dim = params.dim
        self.l2 = params.l2
        self.modalities = inputs.modalities
        seen = adjacency.interaction_matrix(inputs.split)
        self.to_user = Sparse(adjacency.normalise_rows(seen), inputs.device)  # [U, I]
        self.to_item = Sparse(adjacency.normalise_rows(seen.T.tocsr()), inputs.device)  # [I, U]

        feature_widths = [features.shape[1] for features in self.modalities]
        *unprojected, last = feature_widths
        widths = [*unprojected, PROJECTED_WIDTH]  # W_m
        self.project = nn.ModuleList(nn.Identity() for _ in unprojected)
        self.project.append(nn.Linear(last, PROJECTED_WIDTH))

        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(ModalityLayer(width, dim, first=True))
            for _ in range(LAYERS_PER_MODALITY - 1):
                self.layers.append(ModalityLayer(dim, dim, first=False))

        self.user, self.item = normal_pair(n_users, n_items, dim)  # IDs [U, D] and [I, D]
        self.taste = nn.ParameterList(xavier_normal(n_users, width) for width in widths)  # [U, W_m]
        for table in (self.user, self.item, *self.taste):
            table.requires_grad_(False)

    def forward(self) -> tuple[Tensor, Tensor]:
        users = torch.zeros_like(self.user)
        items = torch.zeros_like(self.item)
        for m, (features, taste) in enumerate(zip(self.modalities, self.taste, strict=True)):
            user = nnf.normalize(taste)  # [U, W_m]
            item = nnf.normalize(self.project[m](features))  # [I, W_m]
            for layer in self.layers[m * LAYERS_PER_MODALITY : (m + 1) * LAYERS_PER_MODALITY]:
                next_user = layer(self.to_user, item, user, self.user)
                item = layer(self.to_item, user, item, self.item)
                user = next_user
            users = users + user
            items = items + item
        return users / len(self.modalities), items / len(self.modalities)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "bpr": bpr(*batch.rows(*self())),
            "l2_ids": self.l2 * pair_squares(*batch.rows(self.user, self.item)),
            "l2_taste": self.l2 * self.taste[-1].square().mean(),
        }


class ModalityLayer(nn.Module):
    """One layer of one modality, shared by users and items."""

    def __init__(self, width: int, dim: int, first: bool) -> None:
        super().__init__()
        self.message = nn.Linear(width, width, bias=False)  # W1
        self.own = nn.Linear(width, dim)  # W2
        self.merge = nn.Linear(width + dim, dim)  # W3

        # as published, W3 only in the first layer
        nn.init.xavier_normal_(self.message.weight)
        nn.init.xavier_normal_(self.own.weight)
        if first:
            nn.init.xavier_normal_(self.merge.weight)

    def forward(self, mean: Sparse, others: Tensor, own: Tensor, ids: Tensor) -> Tensor:
        """Return LeakyReLU(W3 [h | u^]), [N, D].

        h is from the mean of `others` [N', W], u^ from `own` [N, W] and `ids` [N, D].
        """
        # in place: h is the largest tensor
        h = nnf.leaky_relu(mean.dot(self.message(others)), inplace=True)  # [N, W]
        u = nnf.leaky_relu(self.own(own)) + ids  # u^ [N, D]
        # two products, as h and u are not concatenated
        h_weight, u_weight = self.merge.weight.split([h.shape[1], u.shape[1]], dim=1)
        return nnf.leaky_relu(nnf.linear(h, h_weight) + nnf.linear(u, u_weight, self.merge.bias))
