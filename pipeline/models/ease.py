"""EASE (Steck, WWW 2019) and L3AE, its variant with content: linear autoencoders in closed form.

min |X - X B|^2 + penalties, diag(B) = 0; all features have length 1. F feature width.
"""

import sys
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Inputs, Untrained
from alignrec.pipeline.models.params import ClosedParams, L3AEParams
from alignrec.pipeline.models.scores import Filter

# the only I x I matrix is the model: it is filled, inverted and turned into weights in place
MATRIX_BLOCK_ROWS = 512


class Closed(Untrained):
    """score(u, i) = sum_{j in N_u} B_ji."""

    Params: ClassVar[type[ClosedParams]] = ClosedParams

    def __init__(self, inputs: Inputs, params: ClosedParams) -> None:
        # has a BLAS of its own, which is limited only once it is loaded
        import scipy.linalg  # noqa: F401

        super().__init__(inputs, params)
        check_memory(inputs.split.n_items, params.gib, type(self).__name__)
        self.seen = adjacency.interaction_matrix(inputs.split)  # X [U, I]
        # the number of threads changes the order of sums
        with threadpool_limits(torch.get_num_threads()):
            weights = self.solve_weights(inputs, params)
        self.filter = Filter(torch.from_numpy(weights).to(inputs.device))

    @abstractmethod
    def solve_weights(self, inputs: Inputs, params: Any) -> np.ndarray:
        """Return B, float32 [I, I]; `params` is an instance of `Params`."""

    def forward(self) -> tuple[sp.csr_array, Filter]:
        return self.seen, self.filter


class EASE(Closed):
    """score(u, .) = x_u B, B = argmin |X - X B|^2 + l2 |B|^2, diag(B) = 0."""

    def solve_weights(self, inputs: Inputs, params: ClosedParams) -> np.ndarray:
        return zero_diagonal(invert_ridge(gram_matrix(self.seen), params.l2, "ease"))


# Moon, Park and Lee, CIKM 2025, arXiv 2508.13500: content scores items without interactions
class L3AE(Closed):
    """score(u, .) = x_u B, S an EASE on features.

    B = argmin |X - X B|^2 + l2 |B|^2 + distil |B - S|^2, diag(B) = 0.
    """

    Params = L3AEParams
    needs = frozenset({"features"})

    def solve_weights(self, inputs: Inputs, params: L3AEParams) -> np.ndarray:
        # B = 1 + d P S - P diag(m), with P = (X^T X + l2 + distil)^-1, d = distil and m such that
        # diag(B) = 0; S = diag(c) + W V^T is of low rank off its diagonal, so that
        # P S = P diag(c) + (P W) V^T
        w, v = content_factors(unit_content(inputs.features), params.content_l2)
        c = -(w * v).sum(1)  # [I], minus the diagonal of W V^T

        matrix = invert_ridge(gram_matrix(self.seen), params.l2 + params.distil, "l3ae")
        diagonal = matrix.diagonal().copy()  # of P, [I]
        distilled = params.distil * (matrix @ w)  # d P W, [I, F]
        m = (1 + params.distil * diagonal * c + (distilled * v).sum(1)) / diagonal

        matrix *= params.distil * c - m
        add_product(matrix, distilled, v)
        np.fill_diagonal(matrix, 0)
        return matrix


def check_memory(n_items: int, gib: float, name: str) -> None:
    """Print the size of a float32 [I, I] matrix above 1 GiB; UserError above `gib`."""
    needed = n_items**2 * 4 / 2**30
    if 1 < needed <= gib:
        size = f"a matrix of {n_items:,} x {n_items:,} items takes {needed:.1f} GiB"
        print(f"{name}: {size}", file=sys.stderr, flush=True)
    if needed > gib:
        raise UserError(
            f"{name}: {n_items:,} items need {needed:,.1f} GiB, more than gib {gib:g}; raise gib "
            "if the machine has the memory, or use itemknn, which needs no such matrix"
        )


def unit_content(features: Tensor | None) -> np.ndarray:
    """Return features scaled to length 1, float32 [I, F]; zero rows stay zero."""
    assert features is not None
    return unit_rows(features.cpu().numpy())[0]


def gram_matrix(seen: sp.csr_array) -> np.ndarray:
    """Return X^T X, float32 [I, I]: co-occurrence counts of items."""
    n_items = seen.shape[1]
    by_item = sp.csr_array(seen.T)
    gram = np.empty((n_items, n_items), np.float32)
    for block in row_blocks(n_items):  # bound the temporary memory
        gram[block] = (by_item[block] @ seen).toarray()
    return gram


def add_product(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Add x y^T to a matrix, [I, I], in place; x and y are float32 [I, F]."""
    for block in row_blocks(len(matrix)):
        matrix[block] += x[block] @ y.T


def invert_ridge(matrix: np.ndarray, l2: float, name: str) -> np.ndarray:
    """Invert a symmetric float32 [I, I] + l2 in place; UserError if it is not positive definite."""
    from scipy.linalg import lapack

    matrix.reshape(-1)[:: len(matrix) + 1] += l2

    # by Cholesky
    lower, failed = lapack.spotrf(matrix.T, lower=1, overwrite_a=1, clean=0)
    if not failed:
        lower, failed = lapack.spotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise UserError(f"{name}: the matrix cannot be inverted in float32; raise its l2")
    assert np.shares_memory(lower, matrix)

    # LAPACK fills only the upper triangle: mirror it
    for block in row_blocks(len(matrix)):
        upper = np.triu(matrix[block, block])
        matrix[block, block] = upper + np.triu(upper, 1).T
        below = slice(block.stop, None)
        matrix[below, block] = matrix[block, below].T
    return matrix


def row_blocks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, MATRIX_BLOCK_ROWS):
        yield slice(start, min(start + MATRIX_BLOCK_ROWS, n_rows))


def zero_diagonal(inverse: np.ndarray) -> np.ndarray:
    """Turn P into B = 1 - P diag(P)^-1 in place, with diag(B) = 0 (Steck 2019, equation 8)."""
    inverse /= -inverse.diagonal().copy()
    np.fill_diagonal(inverse, 0)
    return inverse


def content_factors(features: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Return W and V, float32 [I, F], S = W V^T off the diagonal.

    S = argmin |F - F S|^2 + l2 |S|^2, diag(S) = 0.
    """
    from scipy.linalg import solve_triangular

    # an EASE with feature columns as users; by Woodbury (F^T F + l2)^-1 = (1 - W W^T) / l2 with
    # W = features L^-T and L L^T = l2 + features^T features, so S_ij = w_i . w_j / (1 - |w_j|^2),
    # without inverting an I x I matrix
    x = features.astype(np.float64)
    with threadpool_limits(1):
        gram = x.T @ x
        root = np.linalg.cholesky(gram + l2 * np.eye(x.shape[1]))
        w = solve_triangular(root, x.T, lower=True).T  # [I, F]
    remainder = 1 - np.square(w).sum(1, keepdims=True)
    v = w / remainder
    return w.astype(np.float32), v.astype(np.float32)
