"""InfoNCE with all other rows as negatives, without a B x N matrix.

B batch, N distinct rows, D embedding width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.linalg.device import gemm

LOGIT_ROWS = 512  # rows of logits per step on CPU: 512 x 2048 floats fit the cache
ROW_MULTIPLE = 16  # on CPU, N is padded to a multiple of this, as oneDNN compiles a kernel per N


class Distinct(NamedTuple):
    """Distinct user or item ids of a batch, with their counts."""

    rows: Tensor  # int64 [N], ascending, padded to ROW_MULTIPLE by the first id, with count 0
    at: Tensor  # int64 [B], index into `rows` of each row of the batch
    counts: Tensor  # float32 [N], occurrences in the batch


def merges_rows(device: torch.device) -> bool:
    """Return whether duplicates are merged; not on a GPU, where all steps should have one shape."""
    return device.type == "cpu"


def distinct_items(batch: Tensor) -> Distinct:
    """Return the distinct ids of int64 [B]; on a GPU repeats are kept."""
    if not merges_rows(batch.device):
        places = torch.arange(len(batch), device=batch.device)
        return Distinct(batch, places, torch.ones_like(batch).float())

    rows, places, counts = torch.unique(batch, return_inverse=True, return_counts=True)
    padding = -len(rows) % ROW_MULTIPLE
    padded_rows = torch.cat([rows, rows[:1].expand(padding)])
    return Distinct(padded_rows, places, nnf.pad(counts.float(), (0, padding)))


def info_nce(
    x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False
) -> Tensor:
    """Return mean_i log(sum_j exp(x_i . y_j / t)) - x_i . y_i / t.

    x and y, float [N, D], have rows of length <= 1, and row i counts counts_i times; below t =
    0.03, exp(1 / t) overflows.
    """
    # with bf16, N x N products are of bfloat16 factors; logits are small, so no maximum is
    # subtracted
    dtype = torch.bfloat16 if bf16 else x.dtype
    return _InfoNCE.apply(x / temperature, y, counts, dtype) / counts.sum()


def cosine_nce(
    x: Tensor, y: Tensor, counts: Tensor, temperature: float, bf16: bool = False
) -> Tensor:
    """InfoNCE of directions with in-batch negatives, see `info_nce`.

    -mean_i log softmax_j(cos(x_i, y_j) / t)[i]
    """
    counts = counts.to(y.dtype)
    return info_nce(nnf.normalize(x), nnf.normalize(y), counts, temperature, bf16)


class _InfoNCE(torch.autograd.Function):
    """sum_i n_i (log Z_i - x_i . y_i), Z_i = sum_j n_j exp(x_i . y_j), n = counts.

    Both gradients are computed in forward, with products of factors of dtype `factor_dtype`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, counts: Tensor, factor_dtype: torch.dtype
    ) -> Tensor:
        n = counts[:, None]  # [N, 1]
        weighted = n * y  # [N, D]
        x_factor = x.to(factor_dtype)
        y_factor = y.to(factor_dtype)
        weighted_factor = weighted.to(factor_dtype).T  # [D, N]

        z = torch.empty_like(counts)  # [N]
        dx = torch.empty_like(x)
        dy = torch.zeros_like(y.T)  # [D, N]
        rows_per_step = LOGIT_ROWS if x.is_cpu else len(x)
        for start in range(0, len(x), rows_per_step):
            rows = slice(start, start + rows_per_step)
            exponentials = gemm(x_factor[rows], y_factor).to(x.dtype).exp_()  # [R, N]
            torch.mv(exponentials, counts, out=z[rows])

            exponentials = exponentials.to(factor_dtype)
            scale = n[rows] / z[rows, None]  # [R, 1]
            torch.mul(scale, gemm(exponentials, weighted_factor), out=dx[rows])
            dy += gemm((scale * x[rows]).to(factor_dtype).T, exponentials.T)

        ctx.save_for_backward(dx.sub_(weighted), dy.T.sub(x).mul_(n))
        return torch.dot(counts, z.log() - (x * y).sum(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx, dy = ctx.saved_tensors
        return grads[0] * dx, grads[0] * dy, None, None
