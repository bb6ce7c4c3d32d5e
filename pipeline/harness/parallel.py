"""Data-parallel training in processes started by `torchrun`; only rank 0 writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(hours=6)  # how long the other ranks wait while rank 0 decodes images or measures


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[None]:
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # a caller has already initialised the group
    if dist.is_initialized():
        yield
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    if world() == 1:
        yield
        return
    import torch.distributed as dist

    if rank():
        dist.barrier()
    yield
    if not rank():
        dist.barrier()


def all_reduce(x: Tensor) -> Tensor:
    """Sum over processes, without gradient."""
    if world() == 1:
        return x
    import torch.distributed as dist

    # copy, as all_reduce works in place
    total = x.detach().clone()
    dist.all_reduce(total)
    return total
