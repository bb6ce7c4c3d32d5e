"""SLIM (Ning and Karypis, ICDM 2011): sparse non-negative weights of items for each other.

Letters: U users, I items, C columns at a time, b rows of a block.
"""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.config.base import Positive, Rate, Weight
from pipeline.models import adjacency
from pipeline.models.base import Inputs, Untrained
from pipeline.models.params import Grid, Train
from pipeline.ops.sparse import Sparse

HELD = 1 << 27  # weights held dense at a time: 512 MiB of float32
ROWS = 64  # rows per product with all weights
TOLERANCE = 1e-4  # largest change of a weight in a sweep at which the descent stops


class SLIMParams(Train):
    """Keys of SLIM."""

    grid: ClassVar[Grid] = {"l1": [0.1, 0.5, 1, 2, 5, 10], "l2": [0.1, 1, 10, 50, 100, 500]}
    l1: Weight = 1.0  # weight of |W|_1, lambda: larger ones make W sparser
    l2: Rate = 10.0  # weight of 1/2 |W|^2, beta
    sweeps: Positive = 200  # sweeps of coordinate descent, at most; it stops when no weight changes by 1e-4


class SLIM(Untrained):
    """score(u, .) = x_u W, W = argmin 1/2 |X - X W|^2 + l2/2 |W|^2 + l1 |W|_1, W >= 0, diag(W) = 0."""

    Params = SLIMParams

    def __init__(self, inputs: Inputs, params: SLIMParams) -> None:
        super().__init__(inputs, params)
        self.seen = adjacency.seen(inputs.split)  # X [U, I]
        self.weights = learn(self.seen, params)  # W^T [I, I]

    def forward(self) -> tuple[sp.csr_array, sp.csr_array]:
        return self.seen, self.weights


def learn(seen: sp.csr_array, params: SLIMParams) -> sp.csr_array:
    """Return W^T, float32 [I, I], some columns of W at a time."""
    gram = sp.csr_array(seen.T @ seen)  # [I, I]
    n_items = gram.shape[0]
    step = max(1, HELD // n_items)
    parts = []
    for at in range(0, n_items, step):
        weights = descend(gram, np.arange(at, min(at + step, n_items)), params).numpy()  # [I, C]
        parts.append(sp.csr_array(np.ascontiguousarray(weights.T)))
    return sp.csr_array(sp.vstack(parts, format="csr"))


def descend(gram: sp.csr_array, columns: np.ndarray, params: SLIMParams) -> Tensor:
    """Return some columns of W, [I, C], by cyclic coordinate descent: w_i <- max(0, r_i - l1) / (G_ii + l2).

    r_i = G_ij - sum_{k != i} G_ik w_k. A row of W is one coordinate of all columns at once. A block of rows reads the
    other rows in one sparse product; inside the block rows are updated one after another.
    """
    n_items = gram.shape[0]
    bounds = [*range(0, n_items, ROWS), n_items]
    weights = torch.zeros(n_items, len(columns))
    diagonal = torch.from_numpy(gram.diagonal())
    blocks = []
    for low, high in pairwise(bounds):
        rows = sp.csr_array(gram[low:high])
        own = torch.from_numpy(rows[:, low:high].toarray())  # [b, b]
        blocks.append((slice(low, high), Sparse(rows), own, torch.from_numpy(rows[:, columns].toarray())))
    mine = torch.full((n_items,), -1)  # the column of W in which an item's own weight stands
    mine[torch.from_numpy(columns)] = torch.arange(len(columns))
    for _ in range(params.sweeps):
        moved = 0.0
        for part, rows, own, targets in blocks:
            w = weights[part]  # a view
            outside = targets - rows.dot(weights) + own @ w  # [b, C], without what the block itself takes
            for r, i in enumerate(range(part.start, part.stop)):  # one row after another: each reads the last
                left = outside[r] - own[r] @ w + diagonal[i] * w[r]
                new = (left - params.l1).clamp_(min=0).div_(diagonal[i] + params.l2)
                if mine[i] >= 0:
                    new[mine[i]] = 0
                moved = max(moved, float((new - w[r]).abs().max()))
                w[r] = new
        if moved < TOLERANCE:
            break
    return weights
