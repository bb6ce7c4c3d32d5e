"""InfoNCE with all other rows as negatives, without a B x N matrix. B batch, N distinct rows, D embedding width."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.linalg.device import gemm

ROWS = 512  # rows of logits per step on CPU: 512 x 2048 floats fit the cache
MULTIPLE = 16  # on CPU, N is padded to a multiple of this, as oneDNN compiles a kernel per N


class Distinct(NamedTuple):
    """Distinct user or item ids of a batch, with their counts."""

    rows: Tensor  # int64 [N], ascending, padded to MULTIPLE by repeats of the first, with count 0
    at: Tensor  # int64 [B], index into `rows` of each row of the batch
    counts: Tensor  # float32 [N], occurrences in the batch


def merges_rows(device: torch.device) -> bool:
    """Return whether duplicates are merged; not on a GPU, where every step should have the same shape."""
    return device.type == "cpu"


def distinct_items(batch: Tensor) -> Distinct:
    """Return the distinct ids of int64 [B]; on a GPU repeats are kept."""
    if not merges_rows(batch.device):
        return Distinct(
            batch, torch.arange(len(batch), device=batch.device), torch.ones_like(batch).float()
        )
    rows, at, counts = torch.unique(batch, return_inverse=True, return_counts=True)
    more = -len(rows) % MULTIPLE
    return Distinct(
        torch.cat([rows, rows[:1].expand(more)]), at, nnf.pad(counts.float(), (0, more))
    )


def info_nce(
    x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False
) -> Tensor:
    """Return mean_i log(sum_j exp(x_i . y_j / t)) - x_i . y_i / t, where row i counts counts_i times.

    x and y, float [N, D], have rows of length <= 1; below t = 0.03, exp(1 / t) overflows.
    """
    # with bf16, N x N products are of bfloat16 factors; logits are small, so no maximum is subtracted
    return (
        _InfoNCE.apply(x / temperature, y, counts, torch.bfloat16 if bf16 else x.dtype)
        / counts.sum()
    )


def cosine_nce(
    x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False
) -> Tensor:
    """InfoNCE of directions with in-batch negatives: -mean_i log softmax_j(cos(x_i, y_j) / t)[i]; see `info_nce`."""
    return info_nce(nnf.normalize(x), nnf.normalize(y), counts.to(y.dtype), temperature, bf16)


class _InfoNCE(torch.autograd.Function):
    """sum_i n_i (log Z_i - x_i . y_i), Z_i = sum_j n_j exp(x_i . y_j); both gradients are computed in forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, counts: Tensor, kind: torch.dtype) -> Tensor:
        n = counts[:, None]  # [N, 1]
        x_, y_, weighted = x.to(kind), y.to(kind), (n * y).to(kind).T  # [D, N] the last
        z = torch.empty_like(counts)  # [N]
        dx, dy = torch.empty_like(x), torch.zeros_like(y.T)  # the second [D, N]
        rows = ROWS if x.is_cpu else len(x)
        for part in (slice(at, at + rows) for at in range(0, len(x), rows)):
            e = gemm(x_[part], y_).to(x.dtype).exp_()  # [R, N]
            torch.mv(e, counts, out=z[part])
            e, scale = e.to(kind), n[part] / z[part, None]  # [R, 1] the second
            torch.mul(scale, gemm(e, weighted), out=dx[part])
            dy += gemm((scale * x[part]).to(kind).T, e.T)
        ctx.save_for_backward(dx.sub_(n * y), dy.T.sub(x).mul_(n))
        return torch.dot(counts, z.log() - (x * y).sum(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx, dy = ctx.saved_tensors
        return grads[0] * dx, grads[0] * dy, None, None
