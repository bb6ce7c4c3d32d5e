"""A linear map of factors rounded to bfloat16: twice as fast on processors and GPUs that multiply them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function


def rounded_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x [M, K] @ weight.T [K, N] + bias [N], float32, differentiable in all.

    Factors and products of the map and of both gradients are rounded to bfloat16: a relative error of 2^-9 each.
    """
    return _Linear.apply(x, weight) + bias


class _Linear(Function):
    """y = x W^T, dx = g W, dW = g^T x; each of x, W, g is rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rounded = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(*rounded)
        return (rounded[0] @ rounded[1].T).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        g = grads[0].bfloat16()
        return (g @ weight).float() if ctx.needs_input_grad[0] else None, (g.T @ x).float()
