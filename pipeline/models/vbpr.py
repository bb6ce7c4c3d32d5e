"""VBPR: BPR that also reads content (He and McAuley, AAAI 2016).

Letters: U users, I items, F width of features, B batch, D width of embeddings.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.train import Regularised
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick
from pipeline.models.infonce import distinct


class VBPR(Recommender):
    """score(u, i) = b_i + e_u . e_i + t_u . (E f_i) + b' . f_i (equation 4 without terms constant over items)."""

    Params = Regularised
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Regularised) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        self.l2, self.batch_size = params.l2, params.batch_size
        # unit length: the scale of a feature set would otherwise act as a learning rate of its own
        self.features = nnf.normalize(inputs.features)  # [I, F], fixed
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]
        self.taste = embedding(inputs.split.n_users, params.dim)  # [U, D], the user's preference over content
        self.project = embedding(params.dim + 1, self.features.shape[1])  # [D + 1, F], E and b'
        self.bias = nn.Parameter(torch.zeros(inputs.split.n_items))  # [I]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, 2D + 1] and [I, 2D + 1]: collaborative part, content part, bias."""
        everyone = torch.arange(len(self.bias), device=self.bias.device)
        return self._users(torch.arange(len(self.user), device=self.bias.device)), self._items(everyone)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches and of the projection."""
        items = distinct(torch.cat([batch.positives, batch.negatives]))
        positive, negative = pick(self._items(items.rows), items.at).chunk(2)  # popular items are projected once
        user = self._users(batch.users)
        rows = user[:, :-1], pick(self.item, batch.positives), pick(self.item, batch.negatives), self.project
        return {"bpr": bpr(user, positive, negative), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}

    def _users(self, rows: Tensor) -> Tensor:
        user, taste = pick(self.user, rows), pick(self.taste, rows)
        return torch.cat([user, taste, torch.ones_like(user[:, :1])], 1)  # [B, 2D + 1]

    def _items(self, rows: Tensor) -> Tensor:
        content = pick(self.features, rows) @ self.project.T  # [B, D + 1]
        bias = content[:, -1:] + pick(self.bias[:, None], rows)  # [B, 1]
        return torch.cat([pick(self.item, rows), content[:, :-1], bias], 1)  # [B, 2D + 1]
