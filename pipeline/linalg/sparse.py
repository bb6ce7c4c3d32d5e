"""Sparse-dense products with gradients. M rows, N columns, E edges (non-zeros), D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# floats gathered at a time on CPU: 1 MiB fits in cache, ten times as fast as all at once
CPU_FLOATS = 1 << 18
# floats gathered at a time on a GPU: memory grows with M + N + E, not with E x D
GPU_FLOATS = 1 << 26


class Sparse:
    """Constant sparse matrix [M, N] with a deterministic, differentiable product."""

    def __init__(
        self,
        matrix: sp.csr_array,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self._rows = _csr_tensors(sp.csr_array(matrix), device, dtype)
        self._columns = _csr_tensors(sp.csr_array(matrix.T), device, dtype)

    @property
    def T(self) -> Sparse:
        transposed = object.__new__(Sparse)
        transposed._rows = self._columns
        transposed._columns = self._rows
        return transposed

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return *self._rows, *self._columns

    def dot(self, x: Tensor) -> Tensor:
        """Return this matrix times x [N, D]: [M, D]."""
        # a method, as torch.compile mistakes `a @ x` for a product of tensors
        return _SparseProduct.apply(x, *self.parts)


def _csr_tensors(
    matrix: sp.csr_array, device: torch.device | str, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    matrix.sort_indices()  # fixes the order of summation
    start = torch.from_numpy(matrix.indptr.astype(np.int32)).to(device)
    columns = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
    weights = torch.from_numpy(matrix.data).to(device, dtype)
    return start, columns, weights


def spmm(rows: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply a CSR matrix by x [N, D]: [M, D].

    Its parts are starts int32 [M + 1], columns int32 [E] and weights float [E].
    """
    # embedding_bag sums each row in one thread in a fixed order on every device, and is the fastest
    # on CPU: 118,551 non-zeros x 64 on one core take 0.6 ms, SciPy's CSR 3.5 ms
    start, columns, weights = rows
    outputs = torch.embedding_bag(
        x.contiguous(),
        columns,
        start,
        mode=0,
        per_sample_weights=weights,
        include_last_offset=True,
    )
    return outputs[0]


class _SparseProduct(torch.autograd.Function):
    """a x with gradient a.T g; `parts` are the CSR of a and of a.T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts[3:])
        return spmm(parts[:3], x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return spmm(ctx.saved_tensors, grads[0]), *[None] * 6


class SparsityPattern:
    """Rows and columns [E] of a sparse matrix, whose values are arguments of each call.

    Sums are deterministic.
    """

    def __init__(
        self,
        rows: np.ndarray,
        columns: np.ndarray,
        shape: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.shape = shape
        self.rows = torch.from_numpy(rows.astype(np.int64)).to(device)
        self.columns = torch.from_numpy(columns.astype(np.int64)).to(device)
        self._by_row = _Side(rows, columns, shape[0], device)
        self._by_column = _Side(columns, rows, shape[1], device)

    @property
    def T(self) -> SparsityPattern:
        n_rows, n_columns = self.shape
        transposed = object.__new__(SparsityPattern)
        transposed.shape = n_columns, n_rows
        transposed.rows = self.columns
        transposed.columns = self.rows
        transposed._by_row = self._by_column
        transposed._by_column = self._by_row
        return transposed

    def product(self, weights: Tensor, x: Tensor) -> Tensor:
        """Return the matrix with values `weights` [E] times x [N, D]: [M, D].

        Differentiable in both.
        """
        return _Weighted.apply(weights, x, self)

    def dots(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x[row] . y[column] of every edge, [E], for x [M, D] and y [N, D].

        Differentiable in both.
        """
        return _Dots.apply(x, y, self)

    def softmax(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores [E] over the edges of each row."""
        zeros = scores.new_zeros(self.shape[0])
        largest = zeros.scatter_reduce(0, self.rows, scores.detach(), "amax", include_self=False)
        exp = (scores - largest[self.rows]).exp()
        total = self.product(exp, scores.new_ones(self.shape[1], 1))  # [M, 1]
        return exp / self.of_row(total[:, 0])

    def of_row(self, values: Tensor) -> Tensor:
        return self.dots(values[:, None], values.new_ones(self.shape[1], 1))


class _Side:
    """Edges grouped by one endpoint."""

    def __init__(self, ends: np.ndarray, others: np.ndarray, n: int, device: torch.device) -> None:
        order = np.lexsort((others, ends))
        start = np.searchsorted(ends[order], np.arange(n + 1))
        self.order = torch.from_numpy(order).to(device)
        self.start = torch.from_numpy(start.astype(np.int64)).to(device)
        self.others = torch.from_numpy(others[order].astype(np.int64)).to(device)

    def sum(self, weights: Tensor, x: Tensor) -> Tensor:
        return spmm((self.start, self.others, weights.detach()[self.order]), x.detach())


def _edge_dots(edges: SparsityPattern, x: Tensor, y: Tensor) -> Tensor:
    x, y = x.detach(), y.detach()
    products = x.new_empty(len(edges.rows))
    floats = CPU_FLOATS if x.is_cpu else GPU_FLOATS
    step = max(1, floats // x.shape[1])
    for start in range(0, len(products), step):  # in blocks, to bound memory
        block = slice(start, start + step)
        rows = x.index_select(0, edges.rows[block])
        columns = y.index_select(0, edges.columns[block])
        products[block] = rows.mul_(columns).sum(1)
    return products


class _Weighted(torch.autograd.Function):
    """z_m = sum_e w_e x_n; dw_e = g_m . x_n, dx_n = sum_e w_e g_m."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: SparsityPattern) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(weights, x)
        return edges._by_row.sum(weights, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, x = ctx.saved_tensors
        needs_dw, needs_dx, _ = ctx.needs_input_grad
        dw = _edge_dots(ctx.edges, grads[0], x) if needs_dw else None
        dx = ctx.edges._by_column.sum(weights, grads[0]) if needs_dx else None
        return dw, dx, None


class _Dots(torch.autograd.Function):
    """s_e = x_m . y_n; dx_m = sum_e g_e y_n, dy_n = sum_e g_e x_m."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, edges: SparsityPattern) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x, y)
        return _edge_dots(edges, x, y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y = ctx.saved_tensors
        needs_dx, needs_dy, _ = ctx.needs_input_grad
        dx = ctx.edges._by_row.sum(grads[0], y) if needs_dx else None
        dy = ctx.edges._by_column.sum(grads[0], x) if needs_dy else None
        return dx, dy, None
