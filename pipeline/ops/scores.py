"""Scores of items: a linear map from histories, and the K largest of each row in a defined order.

Letters: I items, b histories, N rows.
"""

from __future__ import annotations

from typing import TypeAlias, Union

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.ops.sparse import Sparse


class Filter:
    """The matrix of a model without item vectors: row j is what item j in a history adds to the scores."""

    def __init__(self, matrix: Tensor, kept: Tensor | None = None) -> None:
        """Take float32 [I, I], which is not copied, and the items to score, all by default."""
        self.matrix = matrix
        self.kept = torch.arange(len(matrix)) if kept is None else kept

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.kept), len(self.matrix)

    def __getitem__(self, rows: np.ndarray | Tensor) -> Filter:
        return Filter(self.matrix, self.kept[torch.as_tensor(rows).long()])

    def scores(self, histories: sp.csr_array) -> Tensor:
        """Return the scores of the kept items, float32 [b, I]."""
        out = Sparse(histories, self.matrix.device).dot(self.matrix)
        return out if len(self.kept) == len(self.matrix) else out[:, self.kept.to(out.device)]


# a table of row vectors, or what stands for that of the items
Vectors: TypeAlias = Union[np.ndarray, Tensor, sp.csr_array, Filter]  # noqa: UP007


def select_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return values and columns of each row's K largest, equal ones by column, which `torch.topk` leaves open."""
    values, ids = torch.topk(scores, min(k + 1, scores.shape[1]))
    if values.shape[1] > k:
        tied_rows = torch.nonzero(values[:, k - 1] == values[:, k])[:, 0]  # a tie crosses the cut
        values, ids = values[:, :k].contiguous(), ids[:, :k].contiguous()
        if len(tied_rows):
            values[tied_rows], ids[tied_rows] = _lowest_columns(scores[tied_rows], values[tied_rows, -1:], k)
    by_column = torch.argsort(ids, dim=1)
    values, ids = values.gather(1, by_column), ids.gather(1, by_column)
    by_value = torch.argsort(values, dim=1, descending=True, stable=True)
    return values.gather(1, by_value), ids.gather(1, by_value)


def _lowest_columns(scores: Tensor, threshold: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the K largest of each row, of the values equal to `threshold` [N, 1] those in the lowest columns."""
    above, tied = scores > threshold, scores == threshold
    room = k - above.sum(1, keepdim=True)
    kept = above | (tied & (tied.cumsum(1) <= room))
    ids = torch.nonzero(kept)[:, 1].view(-1, k)
    return scores.gather(1, ids), ids
