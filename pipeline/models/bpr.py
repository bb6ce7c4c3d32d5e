"""BPR (Rendle et al., UAI 2009) and VBPR (He and McAuley, AAAI 2016).

Letters in shapes: see base.py.
"""

import torch
from torch import Tensor, nn

from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    guarded_bpr,
    l2,
    pick_rows,
    sum_norms,
    xavier_normal,
    xavier_uniform,
)
from alignrec.pipeline.models.infonce import distinct_items
from alignrec.pipeline.models.params import BPRParams, Regularised


# Unlike BPR's paper, the reference implementation penalises unsquared norms (l2), divides them by
# the batch size, and initialises by Xavier normal. Unlike VBPR's paper, its reference has no item
# or visual bias, but a bias of the projection; l2 penalises the unsquared norms of whole vectors,
# projected content included, divided by the batch size.
class BPR(Recommender):
    """score(u, i) = e_u . e_i."""

    Params = BPRParams

    def __init__(self, inputs: Inputs, params: BPRParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.is_paper = params.variant == "paper"
        init_table = xavier_uniform if self.is_paper else xavier_normal
        self.user = init_table(inputs.split.n_users, params.dim)  # [U, D]
        self.item = init_table(inputs.split.n_items, params.dim)  # [I, D]

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user, self.item

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.rows(self.user, self.item)
        if self.is_paper:
            ranking = bpr(*rows)
            penalty = l2(*rows, batch_size=self.params.batch_size)
        else:
            ranking = guarded_bpr(*rows)
            penalty = sum_norms(*rows, divisor=len(batch.users))
        return {"bpr": ranking, "l2": self.params.l2 * penalty}


class VBPR(Recommender):
    """score(u, i) = e_u . e_i + t_u . (E f_i + b)."""

    Params = Regularised
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Regularised) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        n_items, width = inputs.features.shape
        self.l2 = params.l2
        self.features = inputs.features  # [I, F], fixed
        self.user = xavier_uniform(inputs.split.n_users, 2 * params.dim)  # [U, 2D]: e_u, then t_u
        self.item = xavier_uniform(n_items, params.dim)  # [I, D]
        self.project = nn.Linear(width, params.dim)  # E, b
        nn.init.xavier_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self) -> tuple[Tensor, Tensor]:
        every_item = torch.arange(len(self.item), device=self.item.device)
        return self.user, self._item_vectors(every_item)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        # items that occur repeatedly are projected once
        items = distinct_items(torch.cat([batch.positives, batch.negatives]))
        item_vectors = pick_rows(self._item_vectors(items.rows), items.at)
        positive, negative = item_vectors.chunk(2)
        user = pick_rows(self.user, batch.users)

        penalty = sum_norms(user, positive, negative, divisor=len(batch.users))
        return {"bpr": guarded_bpr(user, positive, negative), "l2": self.l2 * penalty}

    def _item_vectors(self, rows: Tensor) -> Tensor:
        content = self.project(pick_rows(self.features, rows))
        return torch.cat([pick_rows(self.item, rows), content], 1)
