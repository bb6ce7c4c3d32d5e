"""BM3 (Zhou et al., WWW 2023): two views by dropout, no negatives; AlignRec's predecessor in production.

By default content is aligned to IDs and reaches the ranking through the shared predictor alone. `learner: id` aligns
IDs to content: items of similar content get similar IDs. docs/accuracy.md has both, beside random features.

Letters: U users, I items, F_m width of modality m, B batch, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share
from pipeline.config.train import Regularised
from pipeline.models.base import Batch, Inputs, Recommender, embedding, l2, pick
from pipeline.models.lightgcn import propagate


class BM3Params(Regularised):
    """What BM3 reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 1
    """LightGCN layers over the user-item graph"""
    drop: Share = 0.3
    """share of a vector's entries that the second view lacks"""
    learner: Literal["content", "id"] = "content"
    """which side of the alignment gets the gradient; the other is the target"""


class BM3(Recommender):
    """score(u, i) = h~_u . h~_i, h~ the predictor's output."""

    Params = BM3Params
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: BM3Params) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.predict = nn.Linear(params.dim, params.dim)  # shared by IDs and modalities

    def hidden(self) -> tuple[Tensor, Tensor]:
        """Return h_u [U, D] and h_i [I, D]: LightGCN, for items with a residual of the ID."""
        user, item = propagate(self.graph, self.user, self.item, self.params.layers)
        return user, item + self.item

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return h~_u [U, D] and h~_i [I, D]."""
        user, item = self.hidden()
        return self.predict(user), self.predict(item)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return rec, align, mask and l2; negatives are not used."""
        h_user, h_item = self.hidden()
        user, item = pick(h_user, batch.users), pick(h_item, batch.positives)  # [B, D]
        content = [
            w(pick(f, batch.positives)) for w, f in zip(self.project, self.modalities, strict=True)
        ]  # M x [B, D]
        online_user, online_item = self.predict(user), self.predict(item)
        target_user, target_item = self._view(user), self._view(item)
        online = [self.predict(c) for c in content]
        if self.params.learner == "id":
            align = [c(online_item, self._view(h)) for h in content]
        else:
            align = [c(x, target_item) for x in online]
        return {
            "rec": c(online_user, target_item) + c(online_item, target_user),
            "align": torch.stack(align).sum(),
            "mask": torch.stack([c(x, self._view(h)) for x, h in zip(online, content, strict=True)]).sum(),
            "l2": self.params.l2 * l2(user, item, batch_size=self.params.batch_size),
        }

    def _view(self, h: Tensor) -> Tensor:
        """The contrastive view: h . Bernoulli(p)."""
        return nnf.dropout(h, self.params.drop, self.training)


def c(online: Tensor, target: Tensor) -> Tensor:
    """C(h~, h.) = -mean cos(h~, stop-gradient(h.)), plus 1 so that it is not negative.

    L_rec = C(h~_u, h._i) + C(h._u, h~_i); with a modality's h~_m, L_align = C(h~_m, h._i), or C(h~_i, h._m) where the
    ID learns, and L_mask = C(h~_m, h._m).
    """
    return 1 - nnf.cosine_similarity(online, target.detach()).mean()
