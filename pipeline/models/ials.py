"""iALS (Hu, Koren and Volinsky, ICDM 2008), tuned as in Rendle et al. (RecSys 2022, arXiv 2110.14037)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Inputs, Untrained
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.runtime.config import Positive, Rate

# maximum rows and padded history entries per block; bounds memory to ROWS D^2 + PLACES D floats
ROWS, PLACES = 256, 1 << 14
SPREAD = 0.1  # initial standard deviation, times sqrt(D)


class IALSParams(Train):
    sweeps: Positive = 16  # alternations, each over all users, then all items
    l2: Rate = 3e-3  # regularisation (lambda)
    unobserved: Rate = (
        0.1  # weight of all pairs with target 0; train pairs with target 1 have weight 1 (alpha_0)
    )


class Block(NamedTuple):
    """Rows of similar history length, solved together."""

    rows: Tensor  # int64 [b], b rows in the block
    members: (
        Tensor  # int64 [b, L], L the longest history, padded with the index of an extra zero row
    )


class IALS(Untrained):
    """score(u, i) = w_u . h_i, minimising sum_train (score - 1)^2 + alpha_0 sum_all score^2 + penalties."""

    Params = IALSParams

    def __init__(self, inputs: Inputs, params: IALSParams) -> None:
        super().__init__(inputs, params)
        split = inputs.split
        spread = SPREAD / params.dim**0.5
        user, item = (torch.randn(n, params.dim) * spread for n in (split.n_users, split.n_items))
        seen = adjacency.interaction_matrix(inputs.split)
        sides = seen, seen.T.tocsr()
        # penalty of a user: lambda (|N_u| + alpha_0 I) |w_u|^2; of an item likewise
        ridges = [
            params.l2 * (m.sum(axis=1).astype(np.float64) + params.unobserved * m.shape[1])
            for m in sides
        ]
        penalties = [
            torch.from_numpy(ridge.astype(np.float32)).to(inputs.device) for ridge in ridges
        ]
        blocks = [
            [Block(*(x.to(inputs.device) for x in one)) for one in group_rows(m)] for m in sides
        ]
        self.user, self.item = user.to(inputs.device), item.to(inputs.device)
        for _ in range(params.sweeps):
            self.user = solve_rows(self.item, blocks[0], penalties[0], params.unobserved)
            self.item = solve_rows(self.user, blocks[1], penalties[1], params.unobserved)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user, self.item


def group_rows(seen: sp.csr_array) -> Iterator[Block]:
    """Yield the rows of [N, M], shortest first, in blocks of at most ROWS rows and PLACES entries (unless one row)."""
    lengths = np.diff(seen.indptr)
    order, at = np.argsort(lengths, kind="stable"), 0
    while at < len(order):
        end = min(at + ROWS, len(order))
        while end > at + 1 and (end - at) * max(lengths[order[end - 1]], 1) > PLACES:
            end = at + (end - at + 1) // 2
        rows = order[at:end]
        place = np.arange(max(lengths[rows].max(), 1))
        inside = place < lengths[rows, None]
        members = np.full(inside.shape, seen.shape[1], np.int64)
        members[inside] = seen.indices[(seen.indptr[rows, None] + place)[inside]]
        yield Block(torch.from_numpy(rows), torch.from_numpy(members))
        at = end


def solve_rows(others: Tensor, blocks: list[Block], ridge: Tensor, unobserved: float) -> Tensor:
    """Return w = (sum_{i in N} h_i h_i^T + alpha_0 H^T H + ridge)^-1 sum_{i in N} h_i for all rows, [N, D]."""
    dim = others.shape[1]
    padded = torch.cat([others, others.new_zeros(1, dim)])
    gram, identity = unobserved * (others.T @ others), torch.eye(dim, device=others.device)
    solved = others.new_empty(len(ridge), dim)
    for rows, members in blocks:
        h = padded[members]  # [b, L, D]
        left = h.mT @ h + gram + ridge[rows, None, None] * identity  # [b, D, D]
        root = torch.linalg.cholesky(left)
        solved[rows] = torch.cholesky_solve(h.sum(1)[:, :, None], root)[:, :, 0]
    return solved
