"""InfoNCE with all of a batch as negatives, without a B x B matrix. Letters: N distinct rows, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 256
"""rows of logits at a time on CPU: 256 x 2048 floats stay in the cache while they are exponentiated and multiplied"""


def info_nce(x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False) -> Tensor:
    """Return mean_i log(sum_j exp(x_i . y_j / t)) - x_i . y_i / t over a batch in which row i occurs counts_i times.

    Rows of a batch that are equal (popular items) are computed once and weighted: same value, fewer products.

    Args:
        x: float [N, D], rows of length at most 1.
        y: float [N, D], rows of length at most 1; y_i is the partner of x_i.
        counts: float [N].
        temperature: t, at least 0.03: exp(1 / t) must not overflow, as no maximum is taken off the logits.
        bf16: whether the N x N products read bfloat16.
    """
    return _InfoNCE.apply(x / temperature, y, counts, bf16) / counts.sum()


class _InfoNCE(torch.autograd.Function):
    """sum_i n_i (log Z_i - x_i . y_i), Z_i = sum_j n_j exp(x_i . y_j); both gradients are made on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, counts: Tensor, bf16: bool) -> Tensor:
        n = counts[:, None]  # [N, 1]
        weighted = n * y  # [N, D]
        dx, dy = -weighted, torch.zeros_like(y)
        total = -(n * x * y).sum()
        kind = torch.bfloat16 if bf16 else x.dtype  # of what the products read
        y_, weighted_ = y.to(kind), weighted.to(kind)
        for rows in torch.arange(len(x), device=x.device).split(ROWS if x.is_cpu else len(x)):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            e = (x[part].to(kind) @ y_.T).to(x.dtype).exp_()  # [R, N]
            z = e @ counts  # [R]
            total = total + (counts[part] * z.log()).sum()
            scale = n[part] / z[:, None]  # [R, 1]
            e_, x_ = e.to(kind), (scale * x[part]).to(kind)
            dx[part].addcmul_(scale, (e_ @ weighted_).to(x.dtype))
            if bf16:
                dy += e_.T @ x_
            else:
                dy.addmm_(e_.T, x_)
        ctx.save_for_backward(dx, (dy - x) * n)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx, dy = ctx.saved_tensors
        return grads[0] * dx, grads[0] * dy, None, None
