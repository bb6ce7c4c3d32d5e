"""BPR: matrix factorisation with a pairwise loss (Rendle et al., UAI 2009).

Letters: U users, I items, B batch, D width.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.config.train import Regularised
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, pick


class BPR(Recommender):
    """score(u, i) = e_u . e_i."""

    Params = Regularised

    def __init__(self, inputs: Inputs, params: Regularised) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size = params.l2, params.batch_size
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the two tables."""
        return self.user, self.item

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and l2 of the rows that the batch touches."""
        user, positive, negative = (
            pick(self.user, batch.users),
            pick(self.item, batch.positives),
            pick(self.item, batch.negatives),
        )
        return {
            "bpr": bpr(user, positive, negative),
            "l2": self.l2 * l2(user, positive, negative, batch_size=self.batch_size),
        }
