"""BM3 (Zhou et al., WWW 2023): two views by dropout, no negatives; AlignRec's predecessor in production.

In the reference a table is dropped as a whole, so that repeats in a batch share a mask; features learn; the losses of
content weigh twice; l2 takes unsquared norms of both tables. The paper's views are of the batch's rows, its features
fixed, its weights 1, its norms squared. In both, content is aligned to IDs and reaches the ranking through the shared
predictor only. The model `bm3-improved` is the paper's with the alignment reversed: items of similar content
get similar IDs. docs/accuracy.md compares them with random features.

Letters: U users, I items, N either, F_m width of modality m, M modalities, B batch, D width.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share, Weight
from pipeline.models.base import Batch, Inputs, Recommender, embedding, l2, learned, norms, pick
from pipeline.models.lightgcn import propagate
from pipeline.models.params import Regularised, Train


class BM3Params(Regularised):
    """What BM3 reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    variant: Literal["reference", "paper"] = "reference"
    """reference: as the published code computes it, with which published tables are made; paper: its equations"""
    layers: Count = 1
    """LightGCN layers over the user-item graph"""
    drop: Share = 0.3
    """share of a vector's entries that the second view lacks"""
    content: Weight | None = None
    """weight of the losses of content; null: 2 in the reference, 1 elsewhere"""


class BM3(Recommender):
    """score(u, i) = h~_u . h~_i, h~ the predictor's output."""

    Params: ClassVar[type[Train]] = BM3Params
    needs = frozenset({"features"})
    to_content: ClassVar[bool] = False
    """whether IDs are aligned to content, not content to IDs"""

    def __init__(self, inputs: Inputs, params: BM3Params) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.is_reference = params, inputs.user_item, params.variant == "reference"
        self.weight = params.content if params.content is not None else 2.0 if self.is_reference else 1.0
        self.modalities = learned(inputs.modalities, self.is_reference)
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)
        self.predict = nn.Linear(params.dim, params.dim)  # shared by IDs and modalities
        if self.is_reference:
            for w in (*self.project, self.predict):
                nn.init.xavier_normal_(w.weight)

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
        users, items = batch.users, batch.positives
        user, item = pick(h_user, users), pick(h_item, items)  # [B, D]
        content = [w(pick(f, items)) for w, f in zip(self.project, self.modalities, strict=True)]  # M x [B, D]
        online_user, online_item = self.predict(user), self.predict(item)
        online = [self.predict(h) for h in content]
        target_user, target_item = self._view(user, users, len(h_user)), self._view(item, items, len(h_item))
        target = [self._view(h, items, len(h_item)) for h in content]
        align = [c(online_item, h) for h in target] if self.to_content else [c(x, target_item) for x in online]
        mask = [c(x, h) for x, h in zip(online, target, strict=True)]
        if self.is_reference:
            penalty = norms(h_user, h_item, divisor=len(self.item))
        else:
            penalty = l2(user, item, batch_size=self.params.batch_size)
        return {
            "rec": c(online_user, target_item) + c(online_item, target_user),
            "align": self.weight * torch.stack(align).sum(),
            "mask": self.weight * torch.stack(mask).sum(),
            "l2": self.params.l2 * penalty,
        }

    def _view(self, h: Tensor, rows: Tensor, n: int) -> Tensor:
        """Return h. [B, D], the contrastive view of rows h of a table [N, D]: h . Bernoulli(p) / p."""
        if not self.training:
            return h
        drop = self.params.drop
        return h * (pick(dropout(h, n, drop), rows) if self.is_reference else dropout(h, len(h), drop))


class ImprovedBM3Params(BM3Params):
    """What improved BM3 reads: BM3's own keys."""

    variant: Literal["paper"] = "paper"
    """all else is as in the paper"""


class ImprovedBM3(BM3):
    """BM3 whose IDs learn from content: a name of its own, so that a benchmark has both."""

    Params = ImprovedBM3Params
    to_content = True


def dropout(like: Tensor, n: int, drop: float) -> Tensor:
    """Return a draw [n, D] of dropout's multipliers, 0 or 1 / (1 - drop), D and dtype those of `like`."""
    return nnf.dropout(like.new_ones(n, like.shape[1]), drop)


def c(online: Tensor, target: Tensor) -> Tensor:
    """C(h~, h.) = -mean cos(h~, stop-gradient(h.)), plus 1 so that it is not negative.

    L_rec = C(h~_u, h._i) + C(h._u, h~_i); with a modality's h~_m, L_align = C(h~_m, h._i), or C(h~_i, h._m) where the
    ID learns, and L_mask = C(h~_m, h._m).
    """
    return 1 - nnf.cosine_similarity(online, target.detach()).mean()
