"""The K largest of each row, with a defined order of equal values."""

from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import scipy.sparse as sp
import torch

if TYPE_CHECKING:
    from pipeline.ops.filters import Filter

# a table of row vectors, or what stands for that of the items
Vectors: TypeAlias = Union[np.ndarray, torch.Tensor, sp.csr_array, "Filter"]


def select(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values [N, K] and columns [N, K] of each row's K largest, best first, equal ones by ascending column.

    `torch.topk` leaves the order of equal values open; constant or missing features tie whole rows.
    """
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


def _lowest_columns(scores: torch.Tensor, threshold: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the K largest of each row, of the values equal to `threshold` [N, 1] those in the lowest columns."""
    above, tied = scores > threshold, scores == threshold
    room = k - above.sum(1, keepdim=True)
    kept = above | (tied & (tied.cumsum(1) <= room))
    ids = torch.nonzero(kept)[:, 1].view(-1, k)
    return scores.gather(1, ids), ids
