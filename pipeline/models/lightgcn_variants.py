"""LightGCN in its two variants.

The paper squares the norms of l2 (equation 15). The reference does not, and divides them by the batch's own size.

Letters: B batch.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.models import lightgcn
from pipeline.models.base import Batch, Inputs, pick
from pipeline.models.variants import Varied, guarded_bpr, norms


class LightGCNParams(Varied, lightgcn.LightGCNParams):
    """What LightGCN reads."""


class LightGCN(lightgcn.LightGCN):
    """score(u, i) = h_u . h_i, h the mean over layers of embeddings propagated over the user-item graph."""

    Params = LightGCNParams

    def __init__(self, inputs: Inputs, params: LightGCNParams) -> None:
        super().__init__(inputs, params)
        self.is_paper = params.variant == "paper"

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr of the propagated, and l2 of the unpropagated rows that the batch touches."""
        if self.is_paper:
            return super().loss(batch)
        h_user, h_item = self()
        rows = pick(self.user, batch.users), pick(self.item, batch.positives), pick(self.item, batch.negatives)
        h = pick(h_user, batch.users), pick(h_item, batch.positives), pick(h_item, batch.negatives)
        return {"bpr": guarded_bpr(*h), "l2": self.l2 * norms(*rows, divisor=len(batch.users))}
