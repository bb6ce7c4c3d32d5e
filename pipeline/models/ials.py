"""iALS (Hu, Koren and Volinsky, ICDM 2008), as in Rendle et al. (RecSys 2022, arXiv 2110.14037)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Inputs, Untrained
from alignrec.pipeline.models.params import IALSParams

# of a block; they bound memory to MAX_ROWS D^2 + MAX_ENTRIES D floats
MAX_ROWS = 256
MAX_ENTRIES = 1 << 14  # of padded histories
INITIAL_DEVIATION = 0.1  # standard deviation, times sqrt(D)


class HistoryBlock(NamedTuple):
    """Rows of similar history length, solved together."""

    rows: Tensor  # int64 [b], b rows in the block
    members: Tensor  # int64 [b, L], L the longest history, padded with the index of a zero row

    def to(self, device: torch.device) -> "HistoryBlock":
        return HistoryBlock(self.rows.to(device), self.members.to(device))


class IALS(Untrained):
    """score(u, i) = w_u . h_i.

    Minimises sum_train (score - 1)^2 + alpha_0 sum_all score^2 + penalties.
    """

    Params = IALSParams

    def __init__(self, inputs: Inputs, params: IALSParams) -> None:
        super().__init__(inputs, params)
        split = inputs.split
        device = inputs.device
        deviation = INITIAL_DEVIATION / params.dim**0.5
        user = torch.randn(split.n_users, params.dim) * deviation
        item = torch.randn(split.n_items, params.dim) * deviation
        self.user = user.to(device)
        self.item = item.to(device)

        by_user = adjacency.interaction_matrix(split)
        by_item = by_user.T.tocsr()
        user_blocks = [block.to(device) for block in group_rows(by_user)]
        item_blocks = [block.to(device) for block in group_rows(by_item)]
        user_ridge = ridge(by_user, params).to(device)
        item_ridge = ridge(by_item, params).to(device)
        for _ in range(params.sweeps):
            self.user = solve_rows(self.item, user_blocks, user_ridge, params.unobserved)
            self.item = solve_rows(self.user, item_blocks, item_ridge, params.unobserved)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user, self.item


def ridge(seen: sp.csr_array, params: IALSParams) -> Tensor:
    """Return lambda (|N_u| + alpha_0 I) of each row u of [U, I], float32 [U]; likewise of items."""
    lengths = seen.sum(axis=1).astype(np.float64)
    penalties = params.l2 * (lengths + params.unobserved * seen.shape[1])
    return torch.from_numpy(penalties.astype(np.float32))


def group_rows(seen: sp.csr_array) -> Iterator[HistoryBlock]:
    """Yield the rows of [N, M], shortest first, in blocks.

    A block has at most MAX_ROWS rows and MAX_ENTRIES entries, unless it is a single row.
    """
    lengths = np.diff(seen.indptr)
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        end = min(start + MAX_ROWS, len(order))
        while end > start + 1 and (end - start) * max(lengths[order[end - 1]], 1) > MAX_ENTRIES:
            end = start + (end - start + 1) // 2
        rows = order[start:end]
        start = end

        place = np.arange(max(lengths[rows].max(), 1))
        is_member = place < lengths[rows, None]  # [b, L]
        entries = (seen.indptr[rows, None] + place)[is_member]
        members = np.full(is_member.shape, seen.shape[1], np.int64)
        members[is_member] = seen.indices[entries]
        yield HistoryBlock(torch.from_numpy(rows), torch.from_numpy(members))


def solve_rows(
    others: Tensor, blocks: list[HistoryBlock], ridge: Tensor, unobserved: float
) -> Tensor:
    """Return w of all rows, [N, D], for a history N of each.

    w = (sum_{i in N} h_i h_i^T + alpha_0 H^T H + ridge)^-1 sum_{i in N} h_i
    """
    dim = others.shape[1]
    padded = torch.cat([others, others.new_zeros(1, dim)])
    gram = unobserved * (others.T @ others)
    identity = torch.eye(dim, device=others.device)

    solved = others.new_empty(len(ridge), dim)
    for rows, members in blocks:
        h = padded[members]  # [b, L, D]
        left = h.mT @ h + gram + ridge[rows, None, None] * identity  # [b, D, D]
        right = h.sum(1)[:, :, None]  # [b, D, 1]
        root = torch.linalg.cholesky(left)
        solved[rows] = torch.cholesky_solve(right, root)[:, :, 0]
    return solved
