"""LGMRec (Guo et al., AAAI 2024): local graphs of behaviour and content, and hyperedges that all of a modality share.

Letters: U users, I items, N either, F_m width of modality m, M modalities, H hyperedges, B batch, D width.
"""

from itertools import combinations
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as nnf
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate, Weight
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, drop, embedding, norms, pick
from pipeline.models.infonce import cross_nce
from pipeline.models.lightgcn import propagate
from pipeline.models.params import Decay, Grid, Regularised
from pipeline.ops.sparse import Sparse
from pipeline.seeds import seed_for

Sides = tuple[Tensor, Tensor]  # rows of users [U, D] and of items [I, D]


class LGMRecParams(Regularised):
    """Keys of LGMRec."""

    grid: ClassVar[Grid] = {
        "hyperedges": [4, 8, 16, 32, 64],
        "keep": [0.1, 0.2, 0.3, 0.4, 0.5],
        "share": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        "contrast": [1e-6, 1e-5, 1e-4, 1e-3],
    }
    lr: Rate = 1e-3
    lr_decay: Decay = 1.0
    l2: Weight = 1e-6  # weight of the final vectors' norms
    layers: Count = 2  # LightGCN layers of the IDs over the user-item graph
    content_layers: Count = 2  # propagations of the content over the user-item graph; the last one is used
    hyper_layers: Positive = 1  # passes through the hyperedges
    hyperedges: Positive = 4  # of each modality
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the assignments to hyperedges that a training step keeps
    share: Weight = 0.3  # weight of the hyperedges' vectors, alpha
    temperature: Rate = 0.2  # of the assignments, and of the contrastive loss
    contrast: Weight = 1e-4  # weight of the contrastive loss between the modalities' hyperedges, a sum over the batch


class LGMRec(Recommender):
    """score(u, i) = x_u . x_i, x = c + sum_m unit(x_m) + alpha unit(sum_m g_m): behaviour, content, hyperedges.

    The published code draws the noise of the assignments for each ranking too; here that one is drawn once.
    """

    Params = LGMRecParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: LGMRecParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, self.modalities = params, inputs.user_item, inputs.modalities
        seen = adjacency.seen(inputs.split)
        self.seen = Sparse(seen, inputs.device)  # R [U, I]
        self.mean = Sparse(adjacency.mean(seen), inputs.device)  # D_u^-1 R [U, I]
        n_users, n_items, widths = inputs.split.n_users, inputs.split.n_items, [f.shape[1] for f in self.modalities]
        self.user = embedding(n_users, params.dim)  # [U, D]
        self.item = embedding(n_items, params.dim)  # [I, D]
        self.project = nn.ParameterList(embedding(width, params.dim) for width in widths)  # T, M x [F_m, D]
        self.edges = nn.ParameterList(embedding(width, params.hyperedges) for width in widths)  # V, M x [F_m, H]
        draws = torch.Generator().manual_seed(seed_for("lgmrec", "gumbel"))
        tables = [torch.empty(n, params.hyperedges) for _ in widths for n in (n_users, n_items)]
        self.noise = [gumbel(table, draws).to(inputs.device) for table in tables]  # of ranking, users then items

    def local(self) -> tuple[Sides, list[Sides]]:
        """Return the behaviour view and each modality's."""
        behaviour = propagate(self.graph, self.user, self.item, self.params.layers)
        content = []
        for features, project in zip(self.modalities, self.project, strict=True):
            item = features @ project
            user = self.mean.dot(item)
            for _ in range(self.params.content_layers):
                user, item = self.graph.dot(item), self.graph.T.dot(user)
            content.append((user, item))
        return behaviour, content

    def hyper(self, item: Tensor) -> list[Sides]:
        """Return the items' behaviour [I, D] after each modality's hyperedges."""
        views = []
        for m, (features, edges) in enumerate(zip(self.modalities, self.edges, strict=True)):
            logits = features @ edges  # [I, H]
            of_user = self._assign(self.seen.dot(logits), 2 * m)
            of_item = self._assign(logits, 2 * m + 1)
            x = item
            for _ in range(self.params.hyper_layers):
                lattice = of_item.T @ x  # [H, D]
                x = of_item @ lattice
            views.append((of_user @ lattice, x))
        return views

    def _assign(self, logits: Tensor, at: int) -> Tensor:
        """Return soft assignments to hyperedges, [N, H]; `at` is the place of the noise of ranking."""
        noise = gumbel(logits) if self.training else self.noise[at]
        assigned = ((logits + noise) / self.params.temperature).softmax(1)
        return drop(assigned, 1 - self.params.keep) if self.training else assigned

    def vectors(self) -> tuple[Tensor, Tensor, list[Sides]]:
        """Return the final vectors [U, D] and [I, D], and the hyperedges' views."""
        behaviour, content = self.local()
        hyper = self.hyper(behaviour[1])
        sides = []
        for side in (0, 1):
            local = torch.stack([nnf.normalize(view[side]) for view in content]).sum(0)
            whole = nnf.normalize(torch.stack([view[side] for view in hyper]).sum(0))
            sides.append(behaviour[side] + local + self.params.share * whole)
        return sides[0], sides[1], hyper

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.vectors()[:2]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        users, items, hyper = self.vectors()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        l2 = self.params.l2 * norms(*rows, divisor=len(batch.users))
        terms = {"bpr": bpr(*rows), "l2": l2}
        if len(hyper) > 1:
            contrasts = [
                contrast(second[side], first[side], at, self.params.temperature)
                for first, second in combinations(hyper, 2)
                for side, at in enumerate((batch.users, batch.positives))
            ]
            terms["contrast"] = self.params.contrast * torch.stack(contrasts).sum()
        return terms


def contrast(x: Tensor, y: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """-sum_i log softmax_j(cos(x_i, y_j) / t)[i] over some rows of x [N, D], all of y [N, D] their negatives."""
    return cross_nce(nnf.normalize(pick(x, rows)), nnf.normalize(y), rows, temperature)


def gumbel(like: Tensor, draws: torch.Generator | None = None) -> Tensor:
    """Return standard Gumbel noise of a tensor's shape, from `draws` or torch's global generator."""
    return -torch.empty_like(like).exponential_(generator=draws).log()
