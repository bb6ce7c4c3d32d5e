"""SLMRec (Tao et al., TMM 2023): contrast between modalities of an item.

Letters in shapes: see base.py.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.models.base import Batch, Inputs, Recommender, l2, pick_rows, xavier_uniform
from alignrec.pipeline.models.infonce import cosine_nce
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import SLMRecParams

# The self-supervised task is FAC, as in the reference implementation: the ID view goes through a
# chain of linear maps, and after each is contrasted with a modality, the last modality first; the
# end of the chain has width D/2. The reference also normalises features, and its l2 is weight decay
# of all parameters. The supervised term is a softmax over the items of the batch.
CHAIN_TEMPERATURE = 0.5  # of the self-supervised term, whose products are not cosines
CHAIN_WEIGHT = 0.01  # of the self-supervised term


class SLMRec(Recommender):
    """score(u, i) = z_u . z_i, z a linear map of the ID view and all content views."""

    Params = SLMRecParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: SLMRecParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.graph = inputs.user_item
        self.modalities = [nnf.normalize(features) for features in inputs.modalities]
        m = len(self.modalities)
        dim = params.dim
        self.user = xavier_uniform(inputs.split.n_users, dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(f.shape[1], dim) for f in self.modalities)
        self.fuse_user = nn.Linear((1 + m) * dim, dim)
        self.fuse_item = nn.Linear((1 + m) * dim, dim)
        self.chain = nn.ModuleList(nn.Linear(dim, width) for width in chain_widths(m, dim))
        # maps of each modality to the space in which it is contrasted
        self.heads = nn.ModuleList(nn.Linear(dim, width) for width in head_widths(m, dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def views(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the ID view and each modality's, (1 + M) x [U, D] and (1 + M) x [I, D]."""
        modalities = zip(self.project, self.modalities, strict=True)
        content = [linear(features) for linear, features in modalities]

        users = []
        items = []
        for table in (self.item, *content):
            user, item = propagate(self.graph, self.user, table, self.params.layers)
            users.append(user)
            items.append(item)
        return users, items

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.views()
        return self.fuse_user(torch.cat(users, 1)), self.fuse_item(torch.cat(items, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        params = self.params
        users, items = self.views()
        user_rows = [pick_rows(view, batch.users) for view in users]  # (1 + M) x [B, D]
        user = self.fuse_user(torch.cat(user_rows, 1))  # [B, D]
        item_rows = [pick_rows(view, batch.positives) for view in items]  # (1 + M) x [B, D]
        item = self.fuse_item(torch.cat(item_rows, 1))  # [B, D]
        behaviour, *content = (pick_rows(view, batch.positives) for view in items)  # [B, D] each
        equal_counts = torch.ones_like(user[:, 0])
        return {
            "main": cosine_nce(user, item, equal_counts, params.temperature),
            "fac": CHAIN_WEIGHT * self.chain_loss(behaviour, content),
            # Adam's weight decay adds w p to the gradient of p: that of w/2 |p|^2
            "l2": params.l2 * l2(*self.parameters(), batch_size=1),
        }

    def chain_loss(self, behaviour: Tensor, content: list[Tensor]) -> Tensor:
        """FAC: cross-entropy of each map of the ID view against its modality."""
        links = []
        mapped = behaviour
        for linear in self.chain:
            mapped = linear(mapped)
            links.append(mapped)
        if len(content) == 2:
            links = [links[0], links[2]]  # the second is for audio

        targets = torch.arange(len(behaviour), device=behaviour.device)
        losses = []
        for link, head, view in zip(links, self.heads, reversed(content), strict=True):
            logits = link @ head(view).T / CHAIN_TEMPERATURE  # [B, B]
            losses.append(nnf.cross_entropy(logits, targets))
        return torch.stack(losses).sum()


def chain_widths(modalities: int, dim: int) -> list[int]:
    """Return the widths of the maps of the ID view, one per modality."""
    if modalities == 1:
        return [dim]
    # three for two modalities: the second, for audio, has no partner (as published)
    return [dim] * max(modalities - 1, 2) + [max(dim // 2, 1)]


def head_widths(modalities: int, dim: int) -> list[int]:
    if modalities == 1:
        return [dim]
    return [dim] * (modalities - 1) + [max(dim // 2, 1)]
