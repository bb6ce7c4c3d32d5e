"""SLMRec (Tao et al., TMM 2023): contrast between modalities of an item. Letters in shapes: see base.py."""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.models.base import Batch, Inputs, Recommender, l2, pick_rows, xavier_uniform
from alignrec.pipeline.models.infonce import cosine_nce
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import Contrastive
from alignrec.pipeline.runtime.config import Count

# The self-supervised task is FAC, as in the reference implementation: the ID view goes through a chain of linear
# maps, and after each is contrasted with a modality, the last modality first; the end of the chain has width D/2. The
# reference also normalises features, and its l2 is weight decay of all parameters. The supervised term is a softmax
# over the items of the batch.
CHAIN_TEMPERATURE = 0.5  # temperature of the self-supervised term, whose products are not cosines
CONTRAST = 0.01  # weight of the self-supervised term


class SLMRecParams(Contrastive):
    layers: Count = 3  # LightGCN layers over the user-item graph


class SLMRec(Recommender):
    """score(u, i) = z_u . z_i, z a linear map of the ID view and all content views."""

    Params = SLMRecParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: SLMRecParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph = params, inputs.user_item
        self.modalities = [nnf.normalize(f) for f in inputs.modalities]
        m, dim = len(self.modalities), params.dim
        self.user = xavier_uniform(inputs.split.n_users, dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(f.shape[1], dim) for f in self.modalities)
        self.fuse_user = nn.Linear((1 + m) * dim, dim)
        self.fuse_item = nn.Linear((1 + m) * dim, dim)
        # maps of the ID view, one per modality, but three for two: the second, for audio, has no partner (as published)
        links = [dim] if m == 1 else [dim] * max(m - 1, 2) + [max(dim // 2, 1)]
        self.chain = nn.ModuleList(nn.Linear(dim, width) for width in links)
        # maps of each modality to the space in which it is contrasted
        widths = [dim] * max(m - 1, 1) + [max(dim // 2, 1)] * (m > 1)
        self.heads = nn.ModuleList(nn.Linear(dim, width) for width in widths)
        for linear in (x for x in self.modules() if isinstance(x, nn.Linear)):
            nn.init.xavier_uniform_(linear.weight)

    def views(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the ID view and each modality's, (1 + M) x [U, D] for users and (1 + M) x [I, D] for items."""
        content = [w(f) for w, f in zip(self.project, self.modalities, strict=True)]
        pairs = [
            propagate(self.graph, self.user, x, self.params.layers) for x in (self.item, *content)
        ]
        return [user for user, _ in pairs], [item for _, item in pairs]

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.views()
        return self.fuse_user(torch.cat(users, 1)), self.fuse_item(torch.cat(items, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        params, (users, items) = self.params, self.views()
        user = self.fuse_user(
            torch.cat([pick_rows(view, batch.users) for view in users], 1)
        )  # [B, D]
        item = self.fuse_item(
            torch.cat([pick_rows(view, batch.positives) for view in items], 1)
        )  # [B, D]
        behaviour, *content = (pick_rows(view, batch.positives) for view in items)  # [B, D] each
        own = torch.arange(len(behaviour), device=behaviour.device)
        links = [behaviour]
        for link in self.chain:
            links.append(link(links[-1]))
        links = [links[1], links[3]] if len(content) == 2 else links[1:]
        pairs = zip(links, self.heads, content[::-1], strict=True)
        fac = [
            nnf.cross_entropy(x @ head(view).T / CHAIN_TEMPERATURE, own) for x, head, view in pairs
        ]
        return {
            "main": cosine_nce(user, item, torch.ones_like(user[:, 0]), params.temperature),
            "fac": CONTRAST * torch.stack(fac).sum(),
            # Adam's weight decay adds w p to the gradient of p: that of w/2 |p|^2
            "l2": params.l2 * l2(*self.parameters(), batch_size=1),
        }
