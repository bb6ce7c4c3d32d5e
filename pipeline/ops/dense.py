"""Dense matrix products by the faster of a CPU's two libraries, in float32 or bfloat16. Letters: M, N rows, K width."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def gemm(x: Tensor, y: Tensor) -> Tensor:
    """Return x [M, K] @ y.T [K, N], of x's dtype and without gradient.

    torch leaves float32 to MKL, but oneDNN is faster on an AMD EPYC: by a fifth on Zen 4, and 450 against 210 GFLOP/s
    on two cores of a later one. It compiles a kernel for each new shape in milliseconds: shapes should repeat.
    """
    if by_onednn(x.device, x.dtype):
        if not (y.is_contiguous() or y.T.is_contiguous()):
            y = y.contiguous()  # a part of wider rows takes its slowest way: seconds
        return torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "")
    return x @ y.T


def by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies `dtype` there: float32 on CPUs with AVX2, bfloat16 with AVX512."""
    packs = {torch.float32: ("AVX512", "AVX2"), torch.bfloat16: ("AVX512",)}.get(dtype, ())
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in packs


def product(x: Tensor, y: Tensor, bf16: bool = False) -> Tensor:
    """Return x [M, K] @ y.T [K, N] of y's dtype, differentiable in both.

    With `bf16` factors and products of the map and both gradients are rounded to bfloat16, a relative error of 2^-9
    each: twice as fast where the hardware multiplies them.
    """
    return _Product.apply(x, y, torch.bfloat16 if bf16 else x.dtype)


class _Product(Function):
    """x y^T, dx = g y, dy = g^T x; each of x, y, g is rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
        x_, y_ = x.to(kind), y.to(kind)
        ctx.save_for_backward(x_, y_)
        return gemm(x_, y_).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, y = ctx.saved_tensors
        g, kind = grads[0].to(x.dtype), grads[0].dtype
        dx = gemm(g, y.T).to(kind) if ctx.needs_input_grad[0] else None
        return dx, gemm(g.T, x.T).to(kind), None
