"""MMGCN (Wei et al., MM 2019): one graph convolution per modality over the user-item graph.

The reference takes the mean of the modalities, concatenates h and u^, has biases in its maps and three layers, starts
with rows of length 1, maps the last modality alone, never trains its tables of IDs and tastes, and takes l2 of mean
squares of the tables. The paper sums, adds, maps every modality, trains all tables; l2 halves squares of final rows.

Letters: U users, I items, N either, F_m width of modality m, W_m that of its first layer, B batch, D width.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Positive, Rate
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, normal, normal_pair, pair_squares, pick
from pipeline.models.params import Regularised, Varied
from pipeline.ops.sparse import Sparse


class MMGCNParams(Varied, Regularised):
    """What MMGCN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Positive = 3
    """graph convolutions of each modality; the published code always takes 3"""
    latent: Positive = 256
    """width to which variant reference maps the last modality"""


class MMGCN(Recommender):
    """score(u, i) = u* . i*, each of the last layers of all modalities.

    The published code ranks by vectors from before the last step of Adam; here they are always the current ones.
    """

    Params = MMGCNParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: MMGCNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.is_paper = params.l2, params.batch_size, params.variant == "paper"
        seen = adjacency.seen(inputs.split)
        self.to_user = Sparse(adjacency.mean(seen), inputs.device)  # [U, I]
        self.to_item = Sparse(adjacency.mean(seen.T.tocsr()), inputs.device)  # [I, U]
        self.modalities = inputs.modalities
        raw, dim = [m.shape[1] for m in self.modalities], params.dim
        widths = [dim] * len(raw) if self.is_paper else [*raw[:-1], params.latent]  # W_m
        mapped = [self.is_paper or f is self.modalities[-1] for f in self.modalities]
        self.project = nn.ModuleList(
            nn.Linear(f, w) if linear else nn.Identity() for f, w, linear in zip(raw, widths, mapped, strict=True)
        )
        self.layers = nn.ModuleList(
            Layer(width if first else dim, dim, self.is_paper, first)
            for width in widths
            for first in [True, *[False] * (params.layers - 1)]
        )
        self._draw_tables(inputs.split.n_users, inputs.split.n_items, dim, widths)

    def _draw_tables(self, n_users: int, n_items: int, dim: int, widths: list[int]) -> None:
        """Draw u_id [U, D], i_id [I, D] and each modality's taste [U, W_m]."""
        if self.is_paper:
            self.user, self.item = embedding(n_users, dim), embedding(n_items, dim)
            self.taste = nn.ParameterList(embedding(n_users, width) for width in widths)
            return
        self.user, self.item = normal_pair(n_users, n_items, dim)
        self.taste = nn.ParameterList(normal(n_users, width) for width in widths)
        for table in (self.user, self.item, *self.taste):
            table.requires_grad_(False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, D] and i* [I, D]."""
        users, items = torch.zeros_like(self.user), torch.zeros_like(self.item)
        depth = len(self.layers) // len(self.modalities)
        for m, (features, taste) in enumerate(zip(self.modalities, self.taste, strict=True)):
            user, item = taste, self.project[m](features)  # [U, W_m], [I, W_m]
            if not self.is_paper:
                user, item = nnf.normalize(user), nnf.normalize(item)
            for layer in self.layers[m * depth : (m + 1) * depth]:
                user, item = (
                    layer(self.to_user, item, user, self.user),
                    layer(self.to_item, user, item, self.item),
                )
            users, items = users + user, items + item
        count = 1 if self.is_paper else len(self.modalities)
        return users / count, items / count

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr and l2: of the tables as published (reference), or of the rows that the batch touches (paper)."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        if self.is_paper:
            return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}
        ids = pick(self.user, batch.users), pick(self.item, batch.positives), pick(self.item, batch.negatives)
        return {
            "bpr": bpr(*rows),
            "l2_ids": self.l2 * pair_squares(*ids),
            "l2_taste": self.l2 * self.taste[-1].square().mean(),
        }


class Layer(nn.Module):
    """One layer of one modality; users and items share it."""

    def __init__(self, width: int, dim: int, is_paper: bool, first: bool) -> None:
        super().__init__()
        self.is_paper = is_paper
        self.message = nn.Linear(width, width, bias=False)  # W1
        self.own = nn.Linear(width, dim, bias=not is_paper)  # W2
        self.merge = nn.Linear(width if is_paper else width + dim, dim, bias=not is_paper)  # W3
        if not is_paper:
            for linear in (self.message, self.own, self.merge)[: 3 if first else 2]:  # as published
                nn.init.xavier_normal_(linear.weight)

    def forward(self, mean: Sparse, others: Tensor, own: Tensor, ids: Tensor) -> Tensor:
        """Return g = LeakyReLU(W3 h + u^) in the paper, LeakyReLU(W3 [h | u^]) in the reference: [N, D].

        Args:
            mean: each of the N nodes' mean over its neighbours, [N, N'].
            others: the vectors of the other side in the layer before, [N', W].
            own: the nodes' vectors in the layer before, [N, W].
            ids: the nodes' ID embeddings, [N, D].
        """
        h = nnf.leaky_relu(mean.dot(self.message(others)), inplace=True)  # [N, W], the largest that there is
        u = nnf.leaky_relu(self.own(own)) + ids  # [N, D], u^
        if self.is_paper:
            return nnf.leaky_relu(self.merge(h) + u)
        of_h, of_u = self.merge.weight.split([h.shape[1], u.shape[1]], dim=1)  # without a copy of h beside u
        return nnf.leaky_relu(nnf.linear(h, of_h) + nnf.linear(u, of_u, self.merge.bias))
