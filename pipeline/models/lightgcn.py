"""LightGCN (He et al., SIGIR 2020). U users, I items, B batch, D embedding width."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignrec.pipeline.linalg.sparse import Sparse, spmm
from alignrec.pipeline.models.base import (
    Batch,
    GraphRecommender,
    Inputs,
    guarded_bpr,
    sum_norms,
    xavier_uniform,
)
from alignrec.pipeline.models.params import LightGCNParams


class LightGCN(GraphRecommender):
    """score(u, i) = h_u . h_i, h the mean over layers of embeddings on the user-item graph."""

    Params = LightGCNParams

    def __init__(self, inputs: Inputs, params: LightGCNParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.graph = inputs.user_item
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]

    def forward(self) -> tuple[Tensor, Tensor]:
        return propagate(self.graph, self.user, self.item, self.params.layers)

    def tables(self) -> tuple[Tensor, ...]:
        return *self(), self.user, self.item

    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        h_user, h_item, user, item = tables
        # unlike equation 15, the reference implementation uses unsquared norms, divided by the
        # actual batch size
        penalty = sum_norms(*batch.rows(user, item), divisor=len(batch.users))
        ranking = guarded_bpr(*batch.rows(h_user, h_item))
        return {"bpr": ranking, "l2": self.params.l2 * penalty}


def propagate(graph: Sparse, user: Tensor, item: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Return the mean of layers 0..L of e <- A_hat e (equations 3, 4), [U, D] and [I, D]."""
    # A_hat consists of R_hat, [U, I], and its transpose: two products of half the size per layer
    return _LayerMean.apply(user, item, layers, *graph.parts)


class _LayerMean(torch.autograd.Function):
    """(1 + A + .. + A^L) e / (L + 1), whose gradient has the same form, as A is symmetric."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, layers: int, *parts: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.layers = layers
        ctx.save_for_backward(*parts)
        return _propagate(user, item, layers, parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        d_user, d_item = _propagate(grads[0], grads[1], ctx.layers, parts)
        constants = [None] * (1 + len(parts))  # layers and parts
        return d_user, d_item, *constants


def _propagate(
    user: Tensor, item: Tensor, layers: int, parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    to_user, to_item = parts[:3], parts[3:]  # R_hat, R_hat^T
    users = user
    items = item
    for _ in range(layers):  # Horner's rule: e + A (e + A (e + ..))
        next_users = spmm(to_user, items).add_(user)
        items = spmm(to_item, users).add_(item)
        users = next_users
    return users / (layers + 1), items / (layers + 1)
