"""AlignRec (CIKM 2024), as in method.md sections 3 and 4. Letters in shapes: see base.py."""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from pydantic import model_validator
from torch import Tensor, nn

from alignrec.pipeline.linalg.device import gemm, is_bf16_fast, matrix_product
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import (
    Batch,
    GraphRecommender,
    Inputs,
    bpr,
    l2,
    pick_rows,
    propagate_steps,
    xavier_uniform,
)
from alignrec.pipeline.models.infonce import cosine_nce, distinct_items
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import FEATURES, Accumulating, ItemGraph, Regularised
from alignrec.pipeline.runtime.config import Name, Rate, Weight

# defaults under `recipe: fast`, from the search in docs/accuracy.md
FAST = {
    "mode": "frozen",
    "precision": "bf16",
    "dim": 128,
    "layers": 4,
    "lr": 1.5e-3,
    "epochs": 30,
    "patience": 5,
}
STRIPS = 6  # strips of REG's symmetric product; 7/12 of it is computed, in blocks large enough to be fast


class AlignRecParams(Regularised, Accumulating, ItemGraph):
    """Parameters of AlignRec (method.md sections 3 and 4), section `train` of params.yaml."""

    recipe: Literal["published", "fast"] = "published"
    """defaults of the other keys: as published, or FAST: wider and deeper, with fewer epochs"""
    features: Name = FEATURES  # feature set the released recommender is trained on
    mode: Literal["compat", "learned", "frozen"] = "compat"
    """what is trained: features and REG's target (compat, the published code), features only, or neither (paper)"""
    content: bool = True  # content branch; false: ID branch only, without CCA and REG
    gate: bool = (
        True  # content gates ID embeddings; false: projected features are propagated directly
    )
    self_neighbour: bool = True  # items are their own neighbours, as published
    symmetric: bool = (
        False  # undirected item graph; published: directed, from an item to its neighbours
    )
    cca: Weight = 0.01  # weight of content-ID alignment
    reg: Weight = 0.1  # weight of the similarity regulariser
    reg_cosine: bool = (
        False  # REG compares cosines of the content branch; published: its dot products
    )
    uia: Weight = 0.1  # weight of user-item alignment
    l2_constant: bool = True
    """L2 is divided by batch_size, as published; false: by the actual size, small in the last batch"""
    temperature: Rate = 0.2  # temperature of CCA's InfoNCE
    cold: Literal["drawn", "zero"] = "drawn"
    """ID embeddings of items without train interactions: random, as published, or zero, so that neighbours decide"""
    precision: Literal["exact", "bf16"] = "exact"
    """bf16: largest products in bfloat16, which rounds differently; exact where oneDNN has no bfloat16, as on CPUs
    without AVX512"""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return FAST | given if isinstance(given, dict) and given.get("recipe") == "fast" else given


class AlignRec(GraphRecommender):
    """score(u, i) = h_u . h_i, h the sum of ID branch and content branch."""

    Params = AlignRecParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: AlignRecParams) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        assert inputs.edges is not None
        self.params = params
        self.bf16 = params.precision == "bf16" and is_bf16_fast(inputs.device)
        self.user_item = inputs.user_item
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]
        self.warm: Tensor | None = None  # [I, 1], 1 for items with train interactions
        if params.cold == "zero":
            seen = (
                np.bincount(inputs.split.train.items, minlength=inputs.split.n_items)[:, None] > 0
            )
            self.warm = torch.from_numpy(seen).to(inputs.device, torch.float32)
        if not params.content:
            return
        item_graph = adjacency.item_graph(
            inputs.edges, inputs.split.n_items, params.self_neighbour, params.symmetric
        )
        self.item_item = Sparse(item_graph, inputs.device)  # S [I, I]
        self.w1 = nn.Linear(inputs.features.shape[1], params.dim)
        if params.gate:
            self.w2 = nn.Linear(params.dim, params.dim)
        self.fixed = inputs.features  # [I, F]
        self.features = (
            self.fixed if params.mode == "frozen" else nn.Parameter(self.fixed.clone())
        )  # [I, F]
        self.rounded = self.fixed.bfloat16() if self.bf16 and params.mode == "frozen" else None

    @property
    def target(self) -> Tensor:
        """Features that REG compares with, [I, F]; in mode `compat` the trained table, as in the published code."""
        return self.features.detach() if self.params.mode == "compat" else self.fixed

    @property
    def ids(self) -> Tensor:
        """ID embeddings of the items, [I, D]; outside training those of cold items may be zero."""
        return self.item if self.training or self.warm is None else self.item * self.warm

    def id_branch(self) -> tuple[Tensor, Tensor]:  # [U, D], [I, D]
        return propagate(self.user_item, self.user, self.ids, self.params.layers)

    def content_branch(self) -> tuple[Tensor, Tensor]:  # [U, D], [I, D]
        weight, bias = self.w1.weight, self.w1.bias
        if self.params.gate:  # W2 W1 first: saves a product over I rows
            weight, bias = self.w2.weight @ weight, self.w2(bias)
        features = self.features if self.rounded is None else self.rounded  # [I, F]
        item = matrix_product(features, weight, self.bf16) + bias  # [I, D]
        if self.params.gate:
            item = self.ids * torch.sigmoid(item)
        item = propagate_steps(self.item_item, item, self.params.item_layers)
        return self.user_item.dot(item), item

    def forward(self) -> tuple[Tensor, Tensor]:
        user, item = self.id_branch()
        if not self.params.content:
            return user, item
        mm_user, mm_item = self.content_branch()
        return user + mm_user, item + mm_item

    def tables(self) -> tuple[Tensor, ...]:
        return *self.id_branch(), *(self.content_branch() if self.params.content else ())

    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        ids, content, params = tables[:2], tables[2:], self.params
        users, items = distinct_items(batch.users), distinct_items(batch.positives)
        both = torch.cat([items.rows, batch.negatives])
        id_user, id_item = pick_rows(ids[0], users.rows), pick_rows(ids[1], both)
        h_user, h_item, align = id_user, id_item, {}
        if content:
            mm_user, mm_item = pick_rows(content[0], users.rows), pick_rows(content[1], both)
            h_user, h_item = id_user + mm_user, id_item + mm_item
            id_positive, mm_positive = id_item[: len(items.rows)], mm_item[: len(items.rows)]
            pairs = (mm_user, id_user, users), (mm_positive, id_positive, items)
            cca = [
                cosine_nce(c, i, side.counts, params.temperature, self.bf16) for c, i, side in pairs
            ]
            compared = nnf.normalize(mm_positive) if params.reg_cosine else mm_positive
            align = {
                "cca": params.cca * (cca[0] + cca[1]),
                "reg": params.reg
                * reg_loss(compared, pick_rows(self.target, items.rows), items.counts, self.bf16),
            }
        rows = pick_rows(h_user, users.at), pick_rows(h_item, items.at), h_item[len(items.rows) :]
        return {
            "bpr": bpr(*rows),
            "l2": params.l2
            * l2(*rows, batch_size=params.batch_size if params.l2_constant else len(batch.users)),
            **align,
            "uia": params.uia * (1 - nnf.cosine_similarity(*rows[:2]).mean()),
        }


def reg_loss(content: Tensor, features: Tensor, counts: Tensor, bf16: bool = False) -> Tensor:
    """REG: || E E^T - C C^T ||_F / B, E = content (not normalised), C = normalised features (no gradient).

    Rows are distinct, [N, D] and [N, F]; row i counts counts_i times, B in all. With bf16, C^T C is in bfloat16.
    """
    # || E E^T - C C^T ||^2 = || E^T E ||^2 - 2 || C^T E ||^2 + || C^T C ||^2 needs no B x B matrix; repeated rows are
    # scaled by sqrt(count)
    root = counts.to(content.dtype).sqrt()[:, None]
    e, c = root * content, features * (root / features.norm(dim=1, keepdim=True).clamp_min(1e-12))
    c = c.T.contiguous()  # [F, N]
    square = matrix_product(e.T, e.T).square().sum() - 2 * matrix_product(c, e.T).square().sum()
    square = square + gram_square(c.T, bf16)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() / counts.sum()


def gram_square(c: Tensor, bf16: bool = False) -> Tensor:
    """|| C^T C ||_F^2 for C [N, F], from the upper blocks of C^T C, or of C C^T if that is smaller."""
    c = (c.T if c.shape[0] > c.shape[1] else c).contiguous()  # [F, N], F < N
    c = c.bfloat16() if bf16 else c
    width = -(-len(c) // STRIPS)
    total = torch.zeros((), device=c.device)
    for at in range(0, len(c), width):
        strip = gemm(c[at : at + width], c[at:]).float()  # [F / STRIPS, rest]
        total = total + 2 * strip.square().sum() - strip[:, :width].square().sum()
    return total
