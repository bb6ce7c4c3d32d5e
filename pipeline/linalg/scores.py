"""Item scores from histories, and top K with ties broken by column. I items, b histories."""

from __future__ import annotations

from typing import TypeAlias, Union

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.linalg.sparse import Sparse


class Filter:
    """Item-item score matrix, float32 [I, I]: row j is the contribution of item j in a history to
    the scores.
    """

    def __init__(self, matrix: Tensor, kept: Tensor | None = None) -> None:
        self.matrix = matrix
        # items to score, all by default
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


# rows of vectors, or a Filter in place of item vectors
Vectors: TypeAlias = Union[np.ndarray, Tensor, sp.csr_array, Filter]  # noqa: UP007


def select_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return values and columns of the K largest per row, best first, ties by lowest column.

    torch.topk does not define the order of ties.
    """
    values, ids = torch.topk(scores, min(k + 1, scores.shape[1]))
    if values.shape[1] > k:
        spans_cutoff = values[:, k - 1] == values[:, k]
        values = values[:, :k].contiguous()
        ids = ids[:, :k].contiguous()
        rows = torch.nonzero(spans_cutoff)[:, 0]
        if len(rows):
            tied_rows = scores[rows]
            lowest = _lowest_columns(tied_rows, values[rows, -1:], k)
            values[rows] = tied_rows.gather(1, lowest)
            ids[rows] = lowest

    by_column = torch.argsort(ids, dim=1)
    values = values.gather(1, by_column)
    ids = ids.gather(1, by_column)
    by_value = torch.argsort(values, dim=1, descending=True, stable=True)
    return values.gather(1, by_value), ids.gather(1, by_value)


def _lowest_columns(scores: Tensor, kth_value: Tensor, k: int) -> Tensor:
    """Return the K best columns, int64 [n, K], the lowest of those that equal the Kth value."""
    above = scores > kth_value
    tied = scores == kth_value
    room = k - above.sum(1, keepdim=True)
    is_chosen = above | (tied & (tied.cumsum(1) <= room))
    return torch.nonzero(is_chosen)[:, 1].view(-1, k)
