"""BM3 (Zhou et al., WWW 2023): contrast of two dropout views, without negatives. Letters in shapes: see base.py."""

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
from alignrec.pipeline.models.params import Multimodal
from alignrec.pipeline.runtime.config import Count, Share, Weight


# Unlike the paper, the reference implementation draws one dropout mask per table row, so that repeats in a batch share
# it; it trains the features, weights content losses by 2, and penalises unsquared norms of both tables (l2). Content
# is aligned to IDs and reaches the ranking only through the shared predictor. `bm3-improved` follows the paper but
# reverses the alignment: items of similar content get similar IDs. docs/accuracy.md compares both on random features.
class BM3Params(Multimodal):
    layers: Count = 1  # LightGCN layers over the user-item graph
    drop: Share = 0.3  # dropout rate of the second view
    content: Weight | None = None  # weight of the content losses; null: 2, or 1 for bm3-improved


class BM3(Recommender):
    """score(u, i) = h~_u . h~_i, h~ the output of the predictor."""

    Params = BM3Params
    needs = frozenset({"features"})
    improved: ClassVar[bool] = False

    def __init__(self, inputs: Inputs, params: BM3Params) -> None:
        super().__init__(inputs, params)
        self.params, self.graph = params, inputs.user_item
        self.weight = (
            params.content if params.content is not None else 1.0 if self.improved else 2.0
        )
        self.modalities = learn_features(inputs.modalities, not self.improved)
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.predict = nn.Linear(params.dim, params.dim)  # shared by IDs and modalities
        if not self.improved:
            for w in (*self.project, self.predict):
                nn.init.xavier_normal_(w.weight)

    def hidden(self) -> tuple[Tensor, Tensor]:
        """Return h_u, [U, D], and h_i, [I, D]: LightGCN, for items plus the ID embedding."""
        user, item = propagate(self.graph, self.user, self.item, self.params.layers)
        return user, item + self.item

    def forward(self) -> tuple[Tensor, Tensor]:
        user, item = self.hidden()
        return self.predict(user), self.predict(item)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        h_user, h_item = self.hidden()
        users, items = batch.users, batch.positives
        user, item = pick_rows(h_user, users), pick_rows(h_item, items)  # [B, D]
        content = [
            w(pick_rows(f, items)) for w, f in zip(self.project, self.modalities, strict=True)
        ]  # M x [B, D]
        online_user, online_item = self.predict(user), self.predict(item)
        online = [self.predict(h) for h in content]
        target_user, target_item = (
            self._dropout_view(user, users, len(h_user)),
            self._dropout_view(item, items, len(h_item)),
        )
        target = [self._dropout_view(h, items, len(h_item)) for h in content]
        if self.improved:
            align = [cosine_loss(online_item, h) for h in target]
            penalty = l2(user, item, batch_size=self.params.batch_size)
        else:
            align = [cosine_loss(x, target_item) for x in online]
            penalty = sum_norms(h_user, h_item, divisor=len(self.item))
        mask = [cosine_loss(x, h) for x, h in zip(online, target, strict=True)]
        return {
            # L_rec = C(h~_u, h._i) + C(h~_i, h._u); for each modality m, L_align = C(h~_m, h._i), improved C(h~_i,
            # h._m), and L_mask = C(h~_m, h._m)
            "rec": cosine_loss(online_user, target_item) + cosine_loss(online_item, target_user),
            "align": self.weight * torch.stack(align).sum(),
            "mask": self.weight * torch.stack(mask).sum(),
            "l2": self.params.l2 * penalty,
        }

    def _dropout_view(self, h: Tensor, rows: Tensor, n: int) -> Tensor:
        """Return h. [B, D], the dropout view of rows h of a table of n rows: h . Bernoulli(p) / p."""
        if not self.training:
            return h
        drop = self.params.drop
        return h * (
            dropout_views(h, len(h), drop)
            if self.improved
            else pick_rows(dropout_views(h, n, drop), rows)
        )


class ImprovedBM3(BM3):
    """BM3 with IDs that learn from content; a separate model, so that benchmarks can include both."""

    improved = True


def dropout_views(like: Tensor, n: int, drop: float) -> Tensor:
    """Draw dropout multipliers, 0 or 1 / (1 - drop), [n, D], with D and dtype of `like`."""
    return nnf.dropout(like.new_ones(n, like.shape[1]), drop)


def cosine_loss(online: Tensor, target: Tensor) -> Tensor:
    """C(h~, h.) = 1 - mean cos(h~, stop-gradient(h.)) over rows [B, D]."""
    return 1 - nnf.cosine_similarity(online, target.detach()).mean()
