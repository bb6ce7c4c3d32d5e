"""Full ranking with train items masked, and MMRec's metrics per user (method.md section 6).

U users, I items, C candidates, D width, K cutoff, N ranked users; T: targets of a user; h_i = 1 if
item i is in T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from alignrec.pipeline.dataset.split import Pairs, Part, Split, contains_keys, pair_keys
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import gemm
from alignrec.pipeline.linalg.top_k import select_top_k
from alignrec.pipeline.models.scores import Filter, Vectors

SCORES_PER_BLOCK = 1 << 21  # 8 MiB of float32 fit the cache
MIN_USERS_PER_BLOCK = 16  # who share a pass over the vectors of a large catalogue


@torch.no_grad()
def topk(
    user: Vectors,
    item: Vectors,
    k: int,
    seen: Pairs,
    users: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    users_per_block: int | None = None,
) -> np.ndarray:
    """Return the K items of highest dot product per user, int32 [N, K].

    Best first, ties by item; -1: none left. Vectors are both dense or both sparse, or histories and
    a filter; pairs in `seen`, sorted by user, are masked.
    """
    n_candidates = item.shape[0] if candidates is None else len(candidates)
    if k > n_candidates:
        raise UserError(
            f"cutoff {k} exceeds the {n_candidates} items that are ranked; choose a smaller one"
        )
    if users is None:
        users = np.arange(user.shape[0])
    if users_per_block is None:
        users_per_block = max(MIN_USERS_PER_BLOCK, SCORES_PER_BLOCK // n_candidates)
    if candidates is None:
        return _rank_items(user, item, k, seen, users, users_per_block)

    place = np.full(item.shape[0], -1, np.int32)
    place[candidates] = np.arange(n_candidates)
    is_candidate = place[seen.items] >= 0
    seen = Pairs(seen.users[is_candidate], place[seen.items[is_candidate]])
    rows: np.ndarray | torch.Tensor = candidates
    if isinstance(item, torch.Tensor):
        rows = torch.from_numpy(candidates).long().to(item.device)
    top = _rank_items(user, item[rows], k, seen, users, users_per_block)
    return np.where(top >= 0, candidates[top], -1).astype(np.int32)


def _rank_items(
    user: Vectors, item: Vectors, k: int, seen: Pairs, users: np.ndarray, users_per_block: int
) -> np.ndarray:
    seen_starts = np.searchsorted(seen.users, np.arange(user.shape[0] + 1))
    top = np.empty((len(users), k), np.int32)
    for start in range(0, len(users), users_per_block):  # blocks bound the memory
        rows = slice(start, start + users_per_block)
        scores = _score_items(user, item, users[rows])
        row, column = _seen_pairs(seen_starts, seen.items, users[rows])
        scores[row.to(scores.device), column.to(scores.device)] = -torch.inf
        values, ids = select_top_k(scores, k)
        top[rows] = torch.where(values > -torch.inf, ids, -1).cpu().numpy()
    return top


def _score_items(user: Vectors, item: Vectors, rows: np.ndarray) -> torch.Tensor:
    if isinstance(item, Filter):
        return item.scores(user[rows])
    if isinstance(user, sp.csr_array):
        return torch.from_numpy((user[rows] @ item.T).toarray())

    user = torch.as_tensor(user)
    item = torch.as_tensor(item)
    picked = torch.from_numpy(rows).long().to(user.device)
    return gemm(user[picked], item)


def _seen_pairs(
    starts: np.ndarray, items: np.ndarray, users: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of users' seen pairs; `starts` [U + 1] are offsets into `items`."""
    counts = starts[users + 1] - starts[users]
    rows = np.repeat(np.arange(len(users)), counts)
    first_of_row = np.cumsum(counts) - counts
    place_in_row = np.arange(len(rows)) - np.repeat(first_of_row, counts)
    columns = items[np.repeat(starts[users], counts) + place_in_row]
    return torch.from_numpy(rows), torch.from_numpy(columns.astype(np.int64))


def recall(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / |T|, float64 [N]; h bool [N, >= K], |T| >= 1 int [N]."""
    return hits[:, :k].sum(1) / targets


def precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / K, float64 [N]; arguments as in `recall`."""
    return hits[:, :k].sum(1) / k


def ndcg(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return DCG over the ideal DCG, float64 [N]; arguments as in `recall`.

    sum_{i<=K} h_i / log2(i+1) over sum_{i<=min(K,|T|)} 1 / log2(i+1)
    """
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gain)[np.minimum(targets, k) - 1]
    return (hits[:, :k] * gain).sum(1) / ideal


def average_precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i precision@i / min(K,|T|), float64 [N], whose mean is MAP."""
    precisions = np.cumsum(hits[:, :k], axis=1) / np.arange(1, k + 1)
    return (precisions * hits[:, :k]).sum(1) / np.minimum(targets, k)


METRIC_FUNCTIONS = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "map": average_precision,
}


@dataclass(frozen=True)
class Evaluation:
    """A ranking, and its metrics per user."""

    users: np.ndarray  # int32 [N], users with a target, ascending
    top: np.ndarray  # int32 [N, max K], best first
    per_user: dict[tuple[str, int], np.ndarray]  # (metric, K) -> float64 [N]

    @property
    def mean(self) -> dict[tuple[str, int], float]:
        means = {}
        for key, values in self.per_user.items():
            means[key] = float(values.mean()) if len(values) else 0.0
        return means

    def named_means(self) -> dict[str, float]:
        return {f"{metric}@{k}": mean for (metric, k), mean in self.mean.items()}


def evaluate_vectors(
    user: Vectors,
    item: Vectors,
    split: Split,
    which: Part,
    ks: Sequence[int],
    seen: Pairs | None = None,
    candidates: np.ndarray | None = None,
) -> Evaluation:
    """Rank items, see `topk`, for users with a target in `which`; `seen` is train by default."""
    targets: Pairs = getattr(split, which)
    users = np.unique(targets.users)
    if seen is None:
        seen = split.train
    top = topk(user, item, max(ks), seen, users, candidates)
    return judge_rankings(top, users, targets, split.n_items, ks)


def judge_rankings(
    top: np.ndarray, users: np.ndarray, targets: Pairs, n_items: int, ks: Sequence[int]
) -> Evaluation:
    ranked_keys = users[:, None].astype(np.int64) * n_items + top
    is_item = top >= 0
    hits = contains_keys(pair_keys(targets, n_items), ranked_keys) & is_item

    n_users = int(users.max(initial=-1)) + 1
    targets_per_user = np.bincount(targets.users, minlength=n_users)[users]
    per_user = {}
    for name, metric in METRIC_FUNCTIONS.items():
        for k in ks:
            per_user[name, k] = metric(hits, targets_per_user, k)
    return Evaluation(users, top, per_user)
