"""BPR: matrix factorisation with a pairwise loss (Rendle et al., UAI 2009).

The paper squares the norms of l2. The reference does not, divides them by the batch's own size, and draws the tables as
Xavier normal.
Letters: U users, I items, B batch, D width.
"""

from typing import Literal

from torch import Tensor

from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, guarded_bpr, l2, normal, norms
from pipeline.models.params import Regularised


class BPRParams(Regularised):
    """Keys of BPR."""

    variant: Literal["reference", "paper"] = "reference"
    """reference: computed like the published code, which made the published tables; paper: the paper's equations"""


class BPR(Recommender):
    """score(u, i) = e_u . e_i."""

    Params = BPRParams

    def __init__(self, inputs: Inputs, params: BPRParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.is_paper = params.l2, params.batch_size, params.variant == "paper"
        table = embedding if self.is_paper else normal
        self.user = table(inputs.split.n_users, params.dim)  # [U, D]
        self.item = table(inputs.split.n_items, params.dim)  # [I, D]

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user, self.item

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.rows(self.user, self.item)
        if self.is_paper:
            return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}
        return {"bpr": guarded_bpr(*rows), "l2": self.l2 * norms(*rows, divisor=len(batch.users))}
