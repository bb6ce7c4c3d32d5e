"""AlignRec (CIKM 2024), as in method.md sections 3 and 4. Letters in shapes: see base.py.

Ablations and the paper's readings of single steps are in evaluation/benchmark/ablations.py.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
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
from alignrec.pipeline.models.infonce import Distinct, cosine_nce, distinct_items
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import AlignRecParams

# strips of REG's symmetric product; 7/12 of it is computed, in blocks large enough to be fast
REG_STRIPS = 6


class AlignRec(GraphRecommender):
    """score(u, i) = h_u . h_i, h the sum of ID branch and content branch."""

    Params = AlignRecParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: AlignRecParams) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        assert inputs.edges is not None
        n_users = inputs.split.n_users
        n_items = inputs.split.n_items
        self.params = params
        self.bf16 = params.precision == "bf16" and is_bf16_fast(inputs.device)

        self.user_item = inputs.user_item  # R_hat [U, I]
        item_graph = adjacency.item_graph(inputs.edges, n_items)
        self.item_item = Sparse(item_graph, inputs.device)  # S [I, I]

        self.user = xavier_uniform(n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(n_items, params.dim)  # [I, D]
        self.w1 = nn.Linear(inputs.features.shape[1], params.dim)
        self.w2 = nn.Linear(params.dim, params.dim)

        self.features = inputs.features  # [I, F]
        self.rounded: Tensor | None = None
        if params.mode == "compat":
            self.features = nn.Parameter(inputs.features.clone())
        elif self.bf16:
            self.rounded = inputs.features.bfloat16()

    @property
    def target(self) -> Tensor:
        """Features that REG compares with, [I, F]; in mode `compat` trained, as published."""
        return self.features.detach()

    def forward(self) -> tuple[Tensor, Tensor]:
        id_user, id_item = self.id_branch()
        mm_user, mm_item = self.content_branch()
        return id_user + mm_user, id_item + mm_item

    def id_branch(self) -> tuple[Tensor, Tensor]:
        """Return h_id of users, [U, D], and items, [I, D]: LightGCN."""
        return propagate(self.user_item, self.user, self.item, self.params.layers)

    def content_branch(self) -> tuple[Tensor, Tensor]:
        """Return h_mm of users, R_hat h_mm_item [U, D], and of items, S z [I, D]."""
        item = propagate_steps(self.item_item, self.content_input(), self.params.item_layers)
        return self.user_item.dot(item), item

    def content_input(self) -> Tensor:
        """Return z, [I, D]: ID embeddings, gated by content."""
        return self.item * self.content_gate()

    def content_gate(self) -> Tensor:
        """Return g = sigmoid(W2 (W1 f + b1) + b2), [I, D]."""
        weight = self.w2.weight @ self.w1.weight  # W2 W1 first: saves a product over I rows
        bias = self.w2(self.w1.bias)
        return torch.sigmoid(self.project(weight, bias))

    def project(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Return a linear map of the features, [I, D]; weight [D, F], bias [D]."""
        features = self.features if self.rounded is None else self.rounded
        return matrix_product(features, weight, self.bf16) + bias

    def tables(self) -> tuple[Tensor, ...]:
        return *self.id_branch(), *self.content_branch()

    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        params = self.params
        rows = BatchRows.of(batch)
        id_user, id_item = rows.pick(*tables[:2])
        mm_user, mm_item = rows.pick(*tables[2:])
        h_user, h_positive, h_negative = rows.repeat(id_user + mm_user, id_item + mm_item)

        id_positive = rows.positives_of(id_item)
        mm_positive = rows.positives_of(mm_item)
        cca_user = self.user_cca(mm_user, id_user, rows.users)
        cca_item = self.cca(mm_positive, id_positive, rows.positives)

        return {
            "bpr": bpr(h_user, h_positive, h_negative),
            "l2": params.l2 * self.l2_penalty(h_user, h_positive, h_negative),
            "cca": params.cca * (cca_user + cca_item),
            "reg": params.reg * self.regulariser(mm_positive, rows.positives),
            "uia": params.uia * uia_loss(h_user, h_positive),
        }

    def cca(self, content: Tensor, ids: Tensor, distinct: Distinct) -> Tensor:
        """Content-ID alignment: InfoNCE, content -> ID, of distinct users or items, [N, D]."""
        return cosine_nce(content, ids, distinct.counts, self.params.temperature, self.bf16)

    def user_cca(self, content: Tensor, ids: Tensor, users: Distinct) -> Tensor:
        """CCA of users, [N_u, D] each, which the published code adds to that of items."""
        return self.cca(content, ids, users)

    def regulariser(self, content: Tensor, items: Distinct) -> Tensor:
        """REG: similarities of distinct items by content branch, [N, D], against features."""
        return reg_loss(content, pick_rows(self.target, items.rows), items.counts, self.bf16)

    def l2_penalty(self, *rows: Tensor) -> Tensor:
        return l2(*rows, batch_size=self.params.batch_size)


class BatchRows(NamedTuple):
    """Rows of a batch; users and positives that occur repeatedly are picked once."""

    users: Distinct  # N_u of them
    positives: Distinct  # N_i of them
    items: Tensor  # int64 [N_i + B], distinct positives, then negatives

    @classmethod
    def of(cls, batch: Batch) -> "BatchRows":
        users = distinct_items(batch.users)
        positives = distinct_items(batch.positives)
        return cls(users, positives, torch.cat([positives.rows, batch.negatives]))

    def pick(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of tables [U, D] and [I, D]: [N_u, D] and [N_i + B, D]."""
        return pick_rows(user, self.users.rows), pick_rows(item, self.items)

    def positives_of(self, item: Tensor) -> Tensor:
        """Return the distinct positives, [N_i, D], of picked items."""
        return item[: len(self.positives.rows)]

    def repeat(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return picked users, positives and negatives of each pair of the batch, [B, D] each."""
        negative = item[len(self.positives.rows) :]
        return pick_rows(user, self.users.at), pick_rows(item, self.positives.at), negative


def uia_loss(user: Tensor, positive: Tensor) -> Tensor:
    """User-item alignment: 1 - mean cos(h_u, h_i+) over rows [B, D]."""
    return 1 - nnf.cosine_similarity(user, positive).mean()


def reg_loss(content: Tensor, features: Tensor, counts: Tensor, bf16: bool = False) -> Tensor:
    """REG: || E E^T - C C^T ||_F / B.

    E = content (not normalised), C = normalised features (no gradient). Rows are distinct, [N, D]
    and [N, F]; row i counts counts_i times, B in all. With bf16, C^T C is in bfloat16.
    """
    # || E E^T - C C^T ||^2 = || E^T E ||^2 - 2 || C^T E ||^2 + || C^T C ||^2 needs no B x B matrix;
    # repeated rows are scaled by sqrt(count)
    root_count = counts.to(content.dtype).sqrt()[:, None]
    norms = features.norm(dim=1, keepdim=True).clamp_min(1e-12)
    e = root_count * content  # [N, D]
    c = (features * (root_count / norms)).T.contiguous()  # [F, N]

    content_square = matrix_product(e.T, e.T).square().sum()
    cross_square = matrix_product(c, e.T).square().sum()
    square = content_square - 2 * cross_square + gram_square(c.T, bf16)

    # above 0, where the root has a gradient
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() / counts.sum()


def gram_square(c: Tensor, bf16: bool = False) -> Tensor:
    """|| C^T C ||_F^2 for C [N, F], from the upper blocks of the smaller of C^T C and C C^T."""
    if c.shape[0] > c.shape[1]:
        c = c.T
    c = c.contiguous()  # [F, N], F < N
    if bf16:
        c = c.bfloat16()

    rows_per_strip = math.ceil(len(c) / REG_STRIPS)
    total = torch.zeros((), device=c.device)
    for start in range(0, len(c), rows_per_strip):
        strip = gemm(c[start : start + rows_per_strip], c[start:]).float()
        block_on_diagonal = strip[:, :rows_per_strip]
        # blocks above the diagonal occur twice in the matrix
        total = total + 2 * strip.square().sum() - block_on_diagonal.square().sum()
    return total
