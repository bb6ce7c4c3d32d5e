"""Full ranking with train items masked, and MMRec's metrics per user (method.md section 6).

U users, I items, C candidates, D width, K cutoff, N ranked users; T: targets of a user; h_i = 1 if item i is in T.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from alignrec.pipeline.dataset.split import Pairs, Part, Split, contains_keys, pair_keys
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import gemm
from alignrec.pipeline.linalg.scores import Filter, Vectors, select_top_k

BLOCK = 1 << 21  # scores per step: 8 MiB of float32 fit the cache


@torch.no_grad()
def topk(
    user: Vectors,
    item: Vectors,
    k: int,
    seen: Pairs,
    users: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
) -> np.ndarray:
    """Return the K items of highest dot product per user, int32 [N, K], best first, ties by item; -1: none left.

    Vectors are both dense or both sparse, or histories and a filter; pairs in `seen`, sorted by user, are masked.
    """
    n_users, n_items = user.shape[0], item.shape[0]
    if k > (n := n_items if candidates is None else len(candidates)):
        raise UserError(f"cutoff {k} exceeds the {n} items that are ranked; choose a smaller one")
    if candidates is not None:
        place = np.full(n_items, -1, np.int32)
        place[candidates] = np.arange(n)
        kept = place[seen.items] >= 0
        rows = (
            torch.from_numpy(candidates).long().to(item.device)
            if isinstance(item, torch.Tensor)
            else candidates
        )
        top = topk(user, item[rows], k, Pairs(seen.users[kept], place[seen.items[kept]]), users)
        return np.where(top >= 0, candidates[top], -1).astype(np.int32)
    users = np.arange(n_users) if users is None else users
    start = np.searchsorted(seen.users, np.arange(n_users + 1))
    top = np.empty((len(users), k), np.int32)
    step = max(1, BLOCK // n_items)
    for at in range(0, len(users), step):  # blocks bound the memory
        block = users[at : at + step]
        scores = _score_items(user, item, block)
        scores[
            tuple(x.to(scores.device) for x in _seen_pairs(start, seen.items, block))
        ] = -torch.inf
        values, ids = select_top_k(scores, k)
        top[at : at + step] = torch.where(values > -torch.inf, ids, -1).cpu().numpy()
    return top


def _score_items(user: Vectors, item: Vectors, rows: np.ndarray) -> torch.Tensor:
    if isinstance(item, Filter):
        return item.scores(user[rows])
    if isinstance(user, sp.csr_array):
        return torch.from_numpy((user[rows] @ item.T).toarray())
    user, item = torch.as_tensor(user), torch.as_tensor(item)
    return gemm(user[torch.from_numpy(rows).long().to(user.device)], item)


def _seen_pairs(
    start: np.ndarray, items: np.ndarray, users: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the block's seen pairs; `start` [U + 1] are offsets into `items`."""
    counts = start[users + 1] - start[users]
    rows = np.repeat(np.arange(len(users)), counts)
    offset = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = items[np.repeat(start[users], counts) + offset]
    return torch.from_numpy(rows), torch.from_numpy(columns.astype(np.int64))


def recall(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / |T|, float64 [N]; hits h bool [N, >= K], targets |T| >= 1 int [N]."""
    return hits[:, :k].sum(1) / targets


def precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / K, float64 [N]; arguments as in `recall`."""
    return hits[:, :k].sum(1) / k


def ndcg(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / log2(i+1) over sum_{i<=min(K,|T|)} 1 / log2(i+1), float64 [N]; see `recall`."""
    gain = 1 / np.log2(np.arange(2, k + 2))
    return (hits[:, :k] * gain).sum(1) / np.cumsum(gain)[np.minimum(targets, k) - 1]


def average_precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i precision@i / min(K,|T|), float64 [N], whose mean is MAP; see `recall`."""
    precisions = np.cumsum(hits[:, :k], axis=1) / np.arange(1, k + 1)
    return (precisions * hits[:, :k]).sum(1) / np.minimum(targets, k)


METRICS = {"recall": recall, "ndcg": ndcg, "precision": precision, "map": average_precision}


@dataclass(frozen=True)
class Evaluation:
    """A ranking, and its metrics per user."""

    users: np.ndarray  # int32 [N], users with a target, ascending
    top: np.ndarray  # int32 [N, max K], best first
    per_user: dict[tuple[str, int], np.ndarray]  # (metric, K) -> float64 [N]

    @property
    def mean(self) -> dict[tuple[str, int], float]:
        return {
            key: float(values.mean()) if len(values) else 0.0
            for key, values in self.per_user.items()
        }


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
    top = topk(user, item, max(ks), split.train if seen is None else seen, users, candidates)
    return judge_rankings(top, users, targets, split.n_items, ks)


def judge_rankings(
    top: np.ndarray, users: np.ndarray, targets: Pairs, n_items: int, ks: Sequence[int]
) -> Evaluation:
    hits = contains_keys(
        pair_keys(targets, n_items), users[:, None].astype(np.int64) * n_items + top
    ) & (top >= 0)
    counts = np.bincount(targets.users, minlength=int(users.max(initial=-1)) + 1)[users]
    values = {(name, k): metric(hits, counts, k) for name, metric in METRICS.items() for k in ks}
    return Evaluation(users, top, values)


class Result(NamedTuple):
    """Metrics of a trained model on valid and test."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]  # protocol and fingerprint


def open_test(
    user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]
) -> Result:
    """Evaluate on valid and test; the only function that reads test targets."""
    valid = evaluate_vectors(
        user,
        item,
        split,
        "valid",
        ks,
        protocol.seen_pairs(split, "valid"),
        protocol.ranked_items(split, "valid"),
    )
    test = evaluate_vectors(
        user,
        item,
        split,
        "test",
        ks,
        protocol.seen_pairs(split, "test"),
        protocol.ranked_items(split, "test"),
    )
    return Result(valid, test, protocol.label)
