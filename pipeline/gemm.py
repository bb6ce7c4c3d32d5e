"""Dense products by the faster of a CPU's two libraries, in float32 or bfloat16. Letters: M, N rows, K width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def times(x: Tensor, y: Tensor) -> Tensor:
    """Return x [M, K] @ y.T [K, N], of x's dtype and without gradient.

    torch leaves float32 to MKL and bfloat16 to oneDNN, which on an AMD EPYC (Zen 4) is a fifth faster in float32
    too: 98 against 79 GFLOP/s a core for [7050, 768] x [768, 64] and both gradients. It compiles a kernel for each
    new shape, which takes milliseconds: shapes should come again.
    """
    if by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "")
    return x @ y.T


def by_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies on x's device and in its dtype: float32 with AVX2, bfloat16 with AVX512."""
    packs = {torch.float32: ("AVX512", "AVX2"), torch.bfloat16: ("AVX512",)}.get(x.dtype, ())
    return x.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in packs


def linear(x: Tensor, weight: Tensor, bias: Tensor, bf16: bool = False) -> Tensor:
    """Return x [M, K] @ weight.T [K, N] + bias [N], differentiable in all.

    Args:
        x: float [M, K].
        weight: float [N, K].
        bias: float [N].
        bf16: whether factors and products of the map and of both gradients are rounded to bfloat16, a relative error
            of 2^-9 each: twice as fast on processors and GPUs that multiply them.
    """
    return _Linear.apply(x, weight, torch.bfloat16 if bf16 else x.dtype) + bias


class _Linear(Function):
    """y = x W^T, dx = g W, dW = g^T x; each of x, W, g is rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, kind: torch.dtype) -> Tensor:
        x_, weight_ = x.to(kind), weight.to(kind)
        ctx.save_for_backward(x_, weight_)
        return times(x_, weight_).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        g, kind = grads[0].to(x.dtype), grads[0].dtype
        dx = times(g, weight.T).to(kind) if ctx.needs_input_grad[0] else None
        return dx, times(g.T, x.T).to(kind), None
