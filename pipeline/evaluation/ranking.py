"""Full ranking of all items, or of given candidates, with masked train items.

Letters: U users, I items, C candidates, D width, K cutoff, N users to rank.
"""

import numpy as np
import scipy.sparse as sp
import torch

from pipeline.errors import UserError
from pipeline.interactions.split import Pairs
from pipeline.ops.device import gemm
from pipeline.ops.scores import Filter, Vectors, select

BLOCK = 1 << 21  # scores per step: 8 MiB of float32 stay in the cache between product and selection


@torch.no_grad()
def topk(
    user: Vectors,
    item: Vectors,
    k: int,
    seen: Pairs,
    users: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
) -> np.ndarray:
    """Return each user's K items of highest dot product, best first.

    Args:
        user, item: float [U, D] and [I, D], both sparse or none; or the histories [U, I] and a filter.
        seen: masked pairs (train), ordered by user.
        users: int [N]; all by default.
        candidates: int [C], ascending; all items by default. UserError if K is larger than their number.

    Returns:
        int32 [N, K]; equal scores in ascending item order; -1 where fewer than K items are left.
    """
    n_users, n_items = user.shape[0], item.shape[0]
    if k > (n := n_items if candidates is None else len(candidates)):
        raise UserError(f"cutoff {k} exceeds the {n} items that are ranked; choose a smaller one")
    if candidates is not None:
        place = np.full(n_items, -1, np.int32)
        place[candidates] = np.arange(n)
        kept = place[seen.items] >= 0
        rows = torch.from_numpy(candidates).long().to(item.device) if isinstance(item, torch.Tensor) else candidates
        top = topk(user, item[rows], k, Pairs(seen.users[kept], place[seen.items[kept]]), users)
        return np.where(top >= 0, candidates[top], -1).astype(np.int32)
    users = np.arange(n_users) if users is None else users
    start = np.searchsorted(seen.users, np.arange(n_users + 1))
    top = np.empty((len(users), k), np.int32)
    step = max(1, BLOCK // n_items)
    for at in range(0, len(users), step):  # blocks bound the memory
        block = users[at : at + step]
        scores = _scores(user, item, block)
        scores[tuple(x.to(scores.device) for x in _seen_pairs(start, seen.items, block))] = -torch.inf
        values, ids = select(scores, k)
        top[at : at + step] = torch.where(values > -torch.inf, ids, -1).cpu().numpy()
    return top


def _scores(user: Vectors, item: Vectors, rows: np.ndarray) -> torch.Tensor:
    if isinstance(item, Filter):
        return item.scores(user[rows])
    if isinstance(user, sp.csr_array):
        return torch.from_numpy((user[rows] @ item.T).toarray())
    user, item = torch.as_tensor(user), torch.as_tensor(item)
    return gemm(user[torch.from_numpy(rows).long().to(user.device)], item)


def _seen_pairs(start: np.ndarray, items: np.ndarray, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the block's seen pairs; `start` [U+1] points into `items`."""
    counts = start[users + 1] - start[users]
    rows = np.repeat(np.arange(len(users)), counts)
    offset = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = items[np.repeat(start[users], counts) + offset]
    return torch.from_numpy(rows), torch.from_numpy(columns.astype(np.int64))
