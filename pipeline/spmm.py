"""The one sparse product that everything uses: a fixed sparse matrix times a dense one that learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


class Sparse:
    """A constant sparse matrix [M, N]; `a @ x` is differentiable in x, with the transpose made once.

    The product is torch's embedding bag: row m is the weighted sum of x's rows at m's column indices. It is the
    fastest sparse product in reach on CPU (118,551 non-zeros x 64 on one core: 0.6 ms, SciPy CSR 3.5 ms), adds each
    row up in one thread in a fixed order, and is the same call on every device.
    """

    def __init__(self, matrix: sp.csr_array, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self._rows = _Rows(matrix, device, dtype)
        self._columns = _Rows(sp.csr_array(matrix.T), device, dtype)

    @property
    def T(self) -> Sparse:
        """The transpose; shares memory."""
        other = object.__new__(Sparse)
        other._rows, other._columns = self._columns, self._rows
        return other

    def __matmul__(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self._rows, self._columns)


class _Rows:
    """One matrix by rows, as index tensors."""

    def __init__(self, matrix: sp.csr_array, device: torch.device | str, dtype: torch.dtype) -> None:
        matrix = sp.csr_array(matrix)
        matrix.sort_indices()  # a fixed order of summation
        self.start = torch.from_numpy(matrix.indptr.astype(np.int32)).to(device)
        self.columns = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self.weights = torch.from_numpy(matrix.data).to(device, dtype)

    def times(self, x: Tensor) -> Tensor:
        return torch.embedding_bag(
            x.detach().contiguous(),
            self.columns,
            self.start,
            mode=0,  # sum
            per_sample_weights=self.weights,
            include_last_offset=True,
        )[0]


class _Product(torch.autograd.Function):
    """a @ x with gradient a.T @ g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: _Rows, columns: _Rows) -> Tensor:
        ctx.columns = columns
        return rows.times(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.columns.times(grads[0]), None, None
