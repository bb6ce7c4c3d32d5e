"""Device selection, and dense products, of float32 on a CPU by oneDNN. M, N rows, K width."""

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

MEASURED_SECONDS = 0.2
# rows, inner width and columns of a measured product
CPU_PRODUCT = 1024, 768, 3072
GPU_PRODUCT = 8192, 4096, 4096


def pick_device(mps: bool = True) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    # MPS has no float64, so callers that need it pass mps=False
    return torch.device("mps" if mps and torch.backends.mps.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def move_to(x: Tensor, device: torch.device) -> Tensor:
    # the copy overlaps with computation if `x` is in pinned memory
    return x.to(device, non_blocking=device.type == "cuda")


def pin_memory(x: Tensor) -> Tensor:
    return x.pin_memory() if torch.cuda.is_available() else x


@cache
def gemm_rate(precision: str, seconds: float = MEASURED_SECONDS) -> float:
    """Measure the throughput of a large matrix product, FLOP/s."""
    device = pick_device()
    dtype = getattr(torch, precision)
    rows, inner, columns = CPU_PRODUCT if device.type == "cpu" else GPU_PRODUCT
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(columns, inner, device=device).to(dtype)

    best = float("inf")
    deadline = time.perf_counter() + seconds
    with torch.inference_mode():
        while best == float("inf") or time.perf_counter() < deadline:
            started = time.perf_counter()
            gemm(a, b)[0, 0].item()  # synchronises with the GPU
            best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def gemm(x: Tensor, y: Tensor) -> Tensor:
    """Return x [M, K] @ y.T [K, N], without gradient."""
    # torch uses MKL for float32, but oneDNN is faster on AMD EPYC: by a fifth on Zen 4, 450 instead
    # of 210 GFLOP/s on two cores of a later one. It compiles a kernel per shape, in milliseconds,
    # so shapes should repeat.
    if by_onednn(x.device, x.dtype):
        if not (y.is_contiguous() or y.T.is_contiguous()):
            y = y.contiguous()  # its path for strided rows takes seconds
        return torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "")
    return x @ y.T


def by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    has_onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    is_wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return has_onednn and is_wide and dtype == torch.float32


def is_bf16_fast(device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    # where oneDNN has no bfloat16, such products take 8 times as long as in float32
    is_available = torch.backends.mkldnn.is_available()
    return is_available and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def matrix_product(x: Tensor, y: Tensor, bf16: bool = False) -> Tensor:
    """Return x [M, K] @ y.T [K, N] of y's dtype, differentiable in both."""
    # bfloat16 rounds inputs and gradients, a relative error of 2^-9 each, for twice the speed
    return _DenseProduct.apply(x, y, torch.bfloat16 if bf16 else x.dtype)


class _DenseProduct(torch.autograd.Function):
    """x y^T with dx = g y, dy = g^T x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
        rounded_x = x.to(dtype)
        rounded_y = y.to(dtype)
        ctx.save_for_backward(rounded_x, rounded_y)
        return gemm(rounded_x, rounded_y).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, y = ctx.saved_tensors
        dtype = grads[0].dtype
        g = grads[0].to(x.dtype)
        dx = gemm(g, y.T).to(dtype) if ctx.needs_input_grad[0] else None
        return dx, gemm(g.T, x.T).to(dtype), None
