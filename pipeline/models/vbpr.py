"""VBPR: BPR that also reads content (He and McAuley, AAAI 2016).

The paper adds an item bias and a visual bias, and squares the norms of l2; here it reads features of unit length. The
reference has neither bias but one of the map, reads features as they are, penalises unsquared norms of whole vectors,
projected content included, and divides them by the batch's own size.

Letters: U users, I items, F width of features, B batch, D width of embeddings.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, guarded_bpr, l2, norms, pick
from pipeline.models.infonce import distinct
from pipeline.models.params import Regularised, Varied


class VBPRParams(Varied, Regularised):
    """What VBPR reads."""


class VBPR(Recommender):
    """score(u, i) = e_u . e_i + t_u . (E f_i + b); in the paper (equation 4) without b, with biases b_i + b' . f_i."""

    Params = VBPRParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: VBPRParams) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        self.l2, self.batch_size, self.is_paper = params.l2, params.batch_size, params.variant == "paper"
        # unit length: the scale of a feature set would otherwise act as a learning rate of its own
        self.features = nnf.normalize(inputs.features) if self.is_paper else inputs.features  # [I, F], fixed
        n_items, width = self.features.shape
        self.user = embedding(inputs.split.n_users, 2 * params.dim)  # [U, 2D]: e_u, then t_u, the taste in content
        self.item = embedding(n_items, params.dim)  # [I, D]
        self.project = nn.Linear(width, params.dim, bias=not self.is_paper)  # E, b
        nn.init.xavier_normal_(self.project.weight)
        if self.is_paper:
            self.visual_bias = nn.Parameter(torch.zeros(width))  # b'
            self.bias = nn.Parameter(torch.zeros(n_items))  # b_i
        else:
            nn.init.zeros_(self.project.bias)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, 2D] and [I, 2D]: collaborative part, content part; the paper's have a column for the biases."""
        return self._users(self.user), self._items(torch.arange(len(self.item), device=self.item.device))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches; the paper's of the projection, not of its products."""
        items = distinct(torch.cat([batch.positives, batch.negatives]))
        positive, negative = pick(self._items(items.rows), items.at).chunk(2)  # popular items are projected once
        taste = pick(self.user, batch.users)
        vectors = self._users(taste), positive, negative
        if not self.is_paper:
            return {"bpr": guarded_bpr(*vectors), "l2": self.l2 * norms(*vectors, divisor=len(batch.users))}
        rows = taste, pick(self.item, batch.positives), pick(self.item, batch.negatives)
        penalty = l2(*rows, self.project.weight, self.visual_bias, batch_size=self.batch_size)
        return {"bpr": bpr(*vectors), "l2": self.l2 * penalty}

    def _users(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, torch.ones_like(rows[:, :1])], 1) if self.is_paper else rows

    def _items(self, rows: Tensor) -> Tensor:
        features = pick(self.features, rows)  # [B, F]
        columns = [pick(self.item, rows), self.project(features)]  # [B, D] each
        if self.is_paper:
            columns.append(features @ self.visual_bias[:, None] + pick(self.bias[:, None], rows))  # [B, 1]
        return torch.cat(columns, 1)
