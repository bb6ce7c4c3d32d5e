"""Item-based nearest neighbours: a recommender without training, on co-interactions or on content.

Letters: U users, I items, F width of features, K neighbours, E train pairs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch.nn.functional as nnf
from torch import Tensor

from pipeline import graph
from pipeline.config import Train, TrainItemKnn
from pipeline.models.base import Inputs, Recommender
from pipeline.spmm import Sparse

BLOCK = 256
"""items whose similarities to all others are held at a time"""


class ItemKNN(Recommender):
    """score(u, i) = sum_{j in N(i) and N_u} s(i, j): u's history times i's neighbours (Deshpande and Karypis 2004)."""

    def __init__(self, inputs: Inputs, params: Train) -> None:
        super().__init__(inputs, params)
        assert isinstance(params, TrainItemKnn)
        self.seen = graph.seen(inputs.split)  # R [U, I]
        self.near = similar(self.seen, params.neighbours)  # [I, I], K an item

    def forward(self) -> tuple[sp.csr_array, sp.csr_array]:
        """Return R [U, I] and S [I, I], both sparse."""
        return self.seen, self.near


class ContentKNN(Recommender):
    """score(u, i) = sum_{j in N_u} cos(f_i, f_j) / |N_u|: nearest to the mean of the history's directions."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Train) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        self.direction = nnf.normalize(inputs.features)  # [I, F]
        self.mean = Sparse(graph.mean(graph.seen(inputs.split)), inputs.device)  # D_u^-1 R [U, I]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, F] and [I, F]."""
        return self.mean @ self.direction, self.direction


def similar(seen: sp.csr_array, k: int) -> sp.csr_array:
    """Return S, float32 [I, I]: s(i, j) = |U_i and U_j| / sqrt(|U_i| |U_j|), of each i its K largest, without itself.

    Equal similarities are kept by ascending item. Items without users have no neighbours.

    Args:
        seen: R, float32 [U, I], 1 for each of the E train pairs.
        k: K.
    """
    length = np.sqrt(np.maximum(seen.sum(axis=0), 1)).astype(np.float32)
    columns = sp.csr_array(seen @ sp.diags_array(1 / length))  # [U, I], of length 1
    by_item = sp.csr_array(columns.T)
    starts = range(0, seen.shape[1], BLOCK)  # blocks bound the memory
    blocks = [largest(by_item[at : at + BLOCK] @ columns, k, at) for at in starts]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def largest(matrix: sp.csr_array, k: int, first: int) -> sp.csr_array:
    """Return the matrix with each row's K largest entries only, equal ones by ascending column.

    Args:
        matrix: similarities of some nodes to all, [B, N].
        k: K.
        first: number of the node in row 0; a node is not its own neighbour.
    """
    matrix = sp.csr_array(matrix)
    matrix.sort_indices()
    columns, values, lengths = [], [], []
    for row, (start, end) in enumerate(pairwise(matrix.indptr)):  # rows differ in length; one sort of all is slower
        ids, near = matrix.indices[start:end], matrix.data[start:end]
        ids, near = ids[ids != first + row], near[ids != first + row]
        if len(ids) > k:
            edge = np.partition(near, -k)[-k]
            above = np.flatnonzero(near > edge)
            kept = np.sort(np.concatenate([above, np.flatnonzero(near == edge)[: k - len(above)]]))
            ids, near = ids[kept], near[kept]
        columns.append(ids)
        values.append(near)
        lengths.append(len(ids))
    start = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array((np.concatenate(values), np.concatenate(columns), start), shape=matrix.shape)
