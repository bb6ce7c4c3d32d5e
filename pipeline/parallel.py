"""Several processes that train one network. `torchrun` starts them; the one of rank 0 writes, the others help it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(hours=6)
"""how long helpers wait while rank 0 decodes pictures or measures"""


def rank() -> int:
    """Return this process's number, 0 when it is alone."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def group() -> Iterator[None]:
    """Join the processes while the block runs, each on a GPU of its own; nothing when this one is alone or joined."""
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

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
def first() -> Iterator[None]:
    """Run the block in rank 0, then in the others, which find what rank 0 has written."""
    if world() == 1:
        yield
        return
    import torch.distributed as dist

    if rank():
        dist.barrier()
    yield
    if not rank():
        dist.barrier()


def agreed(decide: Callable[[], bool]) -> bool:
    """Return what rank 0 decides, in every process."""
    if world() == 1:
        return decide()
    import torch.distributed as dist

    decision = [None if rank() else decide()]
    dist.broadcast_object_list(decision)
    return bool(decision[0])


def summed(x: Tensor) -> Tensor:
    """Return the sum over processes; no gradient flows through it."""
    if world() == 1:
        return x
    import torch.distributed as dist

    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def gathered(x: Tensor) -> tuple[Tensor, int]:
    """Return the rows [n, ...] of all processes one after another, and where this one's begin.

    n may differ between processes; gradients flow back to each.
    """
    if world() == 1:
        return x, 0
    import torch
    import torch.distributed as dist
    from torch.distributed.nn.functional import all_gather

    sizes = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    n = [int(size) for size in sizes]
    padded = torch.cat([x, x.new_zeros((max(n) - len(x), *x.shape[1:]))])
    parts = zip(all_gather(padded), n, strict=True)
    return torch.cat([part[:own] for part, own in parts]), sum(n[: rank()])
