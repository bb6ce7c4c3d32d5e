"""BM3 (Zhou et al., WWW 2023): contrast of two dropout views, without negatives.

Letters in shapes: see base.py.
"""

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    l2,
    learn_features,
    pick_rows,
    sum_norms,
    xavier_uniform,
)
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import BM3Params


# Unlike the paper, the reference implementation draws one dropout mask per table row, so that
# repeats in a batch share it; it trains the features, weights content losses by 2, and penalises
# unsquared norms of both tables (l2). Content is aligned to IDs and reaches the ranking only
# through the shared predictor. `bm3-improved` follows the paper but reverses the alignment: items
# of similar content get similar IDs. docs/study.md compares both.
class BM3(Recommender):
    """score(u, i) = h~_u . h~_i, h~ the output of the predictor."""

    Params = BM3Params
    needs = frozenset({"features"})
    improved: ClassVar[bool] = False
    default_content_weight: ClassVar[float] = 2.0

    def __init__(self, inputs: Inputs, params: BM3Params) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.graph = inputs.user_item
        self.content_weight = self.default_content_weight
        if params.content is not None:
            self.content_weight = params.content

        self.modalities = learn_features(inputs.modalities, not self.improved)
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.predict = nn.Linear(params.dim, params.dim)  # shared by IDs and modalities
        if not self.improved:
            for linear in (*self.project, self.predict):
                nn.init.xavier_normal_(linear.weight)

    def hidden(self) -> tuple[Tensor, Tensor]:
        """Return h_u, [U, D], and h_i, [I, D]: LightGCN, for items plus the ID embedding."""
        user, item = propagate(self.graph, self.user, self.item, self.params.layers)
        return user, item + self.item

    def forward(self) -> tuple[Tensor, Tensor]:
        user, item = self.hidden()
        return self.predict(user), self.predict(item)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss, with h~ the online view and h. the dropout view.

        rec = C(h~_u, h._i) + C(h~_i, h._u). For each modality m, align sums C(h~_m, h._i), improved
        C(h~_i, h._m), and mask sums C(h~_m, h._m).
        """
        h_user, h_item = self.hidden()
        users = batch.users
        items = batch.positives
        user, item = pick_rows(h_user, users), pick_rows(h_item, items)  # [B, D]
        content = self._project_rows(items)

        online_user = self.predict(user)
        online_item = self.predict(item)
        online = [self.predict(h) for h in content]

        target_user = self._dropout_view(user, users, len(h_user))
        target_item = self._dropout_view(item, items, len(h_item))
        target = [self._dropout_view(h, items, len(h_item)) for h in content]

        if self.improved:
            align = [cosine_loss(online_item, h) for h in target]
            penalty = l2(user, item, batch_size=self.params.batch_size)
        else:
            align = [cosine_loss(x, target_item) for x in online]
            penalty = sum_norms(h_user, h_item, divisor=len(self.item))
        mask = [cosine_loss(x, h) for x, h in zip(online, target, strict=True)]

        rec = cosine_loss(online_user, target_item) + cosine_loss(online_item, target_user)
        return {
            "rec": rec,
            "align": self.content_weight * torch.stack(align).sum(),
            "mask": self.content_weight * torch.stack(mask).sum(),
            "l2": self.params.l2 * penalty,
        }

    def _project_rows(self, items: Tensor) -> list[Tensor]:
        """Return the projected features of items, M x [B, D]."""
        modalities = zip(self.project, self.modalities, strict=True)
        return [linear(pick_rows(features, items)) for linear, features in modalities]

    def _dropout_view(self, h: Tensor, rows: Tensor, n: int) -> Tensor:
        """Return h. = h . Bernoulli(p) / p, [B, D], for rows h of a table of n rows."""
        if not self.training:
            return h
        if self.improved:
            return h * dropout_views(h, len(h), self.params.drop)
        by_table_row = dropout_views(h, n, self.params.drop)
        return h * pick_rows(by_table_row, rows)


class ImprovedBM3(BM3):
    """BM3 with IDs that learn from content; a model of its own, to benchmark both."""

    improved = True
    default_content_weight = 1.0


def dropout_views(like: Tensor, n: int, drop: float) -> Tensor:
    """Draw dropout multipliers, 0 or 1 / (1 - drop), [n, D], with D and dtype of `like`."""
    return nnf.dropout(like.new_ones(n, like.shape[1]), drop)


def cosine_loss(online: Tensor, target: Tensor) -> Tensor:
    """C(h~, h.) = 1 - mean cos(h~, stop-gradient(h.)) over rows [B, D]."""
    return 1 - nnf.cosine_similarity(online, target.detach()).mean()
