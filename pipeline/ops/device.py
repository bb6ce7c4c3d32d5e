"""The device that networks run on, and its GEMM rate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from pipeline.ops.dense import gemm

SECONDS = 0.2  # of one measurement


def pick(mps: bool = True) -> torch.device:
    """Return the fastest device: CUDA, then Apple's MPS unless refused, as it has no float64, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if mps and torch.backends.mps.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return `x` on the device; from pinned memory the copy overlaps with computation on CUDA."""
    return x.to(device, non_blocking=device.type == "cuda")


def pinned(x: Tensor) -> Tensor:
    return x.pin_memory() if torch.cuda.is_available() else x


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def gemm_rate(precision: str, seconds: float = SECONDS) -> float:
    """Return the device's rate in one large matrix product, operations a second: the best of several; measured once."""
    device, dtype = pick(), getattr(torch, precision)
    rows, inner, columns = (1024, 768, 3072) if device.type == "cpu" else (8192, 4096, 4096)
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(columns, inner, device=device).to(dtype)
    best, deadline = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        while best == float("inf") or time.perf_counter() < deadline:
            started = time.perf_counter()
            gemm(a, b)[0, 0].item()  # waits for a GPU
            best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best
