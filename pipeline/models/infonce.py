"""InfoNCE with all of a batch, or of a table, as negatives, without a B x N matrix.

Letters: B batch, N distinct rows or rows of the table, D width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.ops.device import gemm

ROWS = 512  # rows of logits per step on CPU: 512 x 2048 floats stay in the cache between exponential and product
MULTIPLE = 16  # N is a multiple of it on CPU: oneDNN compiles a kernel for each new N


class Distinct(NamedTuple):
    """A batch's rows of a table, each once."""

    rows: Tensor  # int64 [N], ascending, padded with up to MULTIPLE - 1 repeats of the first, of count 0
    at: Tensor  # int64 [B], where each row of the batch is in rows
    counts: Tensor  # float32 [N], how often the batch has each


def merges_rows(device: torch.device) -> bool:
    """Return whether repeated rows of a batch are computed once; on a GPU every step has one shape instead."""
    return device.type == "cpu"


def distinct_items(batch: Tensor) -> Distinct:
    """Return the distinct rows of int64 [B], or all of them on a GPU; see `merges_rows`."""
    if not merges_rows(batch.device):
        return Distinct(batch, torch.arange(len(batch), device=batch.device), torch.ones_like(batch).float())
    rows, at, counts = torch.unique(batch, return_inverse=True, return_counts=True)
    more = -len(rows) % MULTIPLE
    return Distinct(torch.cat([rows, rows[:1].expand(more)]), at, nnf.pad(counts.float(), (0, more)))


def info_nce(x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False) -> Tensor:
    """Return mean_i log(sum_j exp(x_i . y_j / t)) - x_i . y_i / t over a batch in which row i occurs counts_i times.

    Rows x, y, float [N, D], have a length of at most 1, and y_i is the partner of x_i. The temperature t is at least
    0.03: exp(1 / t) must not overflow, as no maximum is taken off the logits. With bf16 N x N products read bfloat16.
    """
    return _InfoNCE.apply(x / temperature, y, counts, torch.bfloat16 if bf16 else x.dtype) / counts.sum()


def cosine_nce(x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False) -> Tensor:
    """Return -mean_i log softmax_j(cos(x_i, y_j) / t)[i] over a batch, its own negatives: `info_nce` of directions."""
    return info_nce(nnf.normalize(x), nnf.normalize(y), counts.to(y.dtype), temperature, bf16)


class _InfoNCE(torch.autograd.Function):
    """sum_i n_i (log Z_i - x_i . y_i), Z_i = sum_j n_j exp(x_i . y_j); forward computes both gradients."""

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
