"""Top K of each row, with ties broken by column."""

import torch
from torch import Tensor


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
