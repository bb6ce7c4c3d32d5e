"""The one sparse product: a constant sparse matrix times a dense one that may have a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


class Sparse:
    """A constant sparse matrix [M, N]; `a.dot(x)` is differentiable in x, with the transpose made once.

    The product is torch's embedding bag, the fastest measured on CPU (118,551 non-zeros x 64 on one core: 0.6 ms, SciPy
    CSR 3.5 ms). It adds up each row in one thread in a fixed order, on every device.
    """

    def __init__(self, matrix: sp.csr_array, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self._rows = _rows(sp.csr_array(matrix), device, dtype)
        self._columns = _rows(sp.csr_array(matrix.T), device, dtype)

    @property
    def T(self) -> Sparse:
        other = object.__new__(Sparse)
        other._rows, other._columns = self._columns, self._rows
        return other

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return *self._rows, *self._columns

    def dot(self, x: Tensor) -> Tensor:
        """Return a x [M, D] of x [N, D]; `a @ x` would stop torch.compile, which takes it for a product of tensors."""
        return _Product.apply(x, *self.parts)


def _rows(matrix: sp.csr_array, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    matrix.sort_indices()  # a fixed order of summation
    start, columns = (torch.from_numpy(x.astype(np.int32)).to(device) for x in (matrix.indptr, matrix.indices))
    return start, columns, torch.from_numpy(matrix.data).to(device, dtype)


def spmm(rows: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return a x [M, D] of x [N, D]; `rows` of a: starts int32 [M + 1], columns int32 [E], weights float [E]."""
    start, columns, weights = rows
    sums = torch.embedding_bag(
        x.contiguous(), columns, start, mode=0, per_sample_weights=weights, include_last_offset=True
    )
    return sums[0]


class _Product(torch.autograd.Function):
    """a x with gradient a.T g; `parts` are a's and a.T's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts[3:])
        return spmm(parts[:3], x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return spmm(ctx.saved_tensors, grads[0]), *[None] * 6
