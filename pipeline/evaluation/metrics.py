"""Ranking metrics, per user. Letters: N users with a target, K cutoff, h_i = 1 if the i-th item is a target.

T is the set of a user's targets. Definitions are MMRec's (method.md section 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.ranking import topk
from pipeline.interactions.split import Pairs, Part, Split, contains, keys
from pipeline.ops.scores import Vectors


def recall(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / |T|, float64 [N], of hits h, bool [N, >=K], and targets |T|, int [N], at least 1."""
    return hits[:, :k].sum(1) / targets


def precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / K, float64 [N]; arguments as for recall."""
    return hits[:, :k].sum(1) / k


def ndcg(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i / log2(i+1) over sum_{i<=min(K,|T|)} 1 / log2(i+1), float64 [N]; see recall."""
    gain = 1 / np.log2(np.arange(2, k + 2))
    return (hits[:, :k] * gain).sum(1) / np.cumsum(gain)[np.minimum(targets, k) - 1]


def average_precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return sum_{i<=K} h_i precision@i / min(K,|T|), float64 [N]; its mean is MAP. Arguments as for recall."""
    precisions = np.cumsum(hits[:, :k], axis=1) / np.arange(1, k + 1)
    return (precisions * hits[:, :k]).sum(1) / np.minimum(targets, k)


METRICS = {"recall": recall, "ndcg": ndcg, "precision": precision, "map": average_precision}


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one ranking."""

    users: np.ndarray  # int32 [N], the users with a target, ascending
    top: np.ndarray  # int32 [N, max K], their recommendations, best first
    per_user: dict[tuple[str, int], np.ndarray]  # (metric, K) -> float64 [N]

    @property
    def mean(self) -> dict[tuple[str, int], float]:
        """(metric, K) -> mean over the users with a target; 0 where there is none."""
        return {key: float(values.mean()) if len(values) else 0.0 for key, values in self.per_user.items()}


def evaluate(
    user: Vectors,
    item: Vectors,
    split: Split,
    which: Part,
    ks: Sequence[int],
    seen: Pairs | None = None,
    candidates: np.ndarray | None = None,
) -> Evaluation:
    """Rank items for every user with a target in `which`, and compute the metrics; `seen` is train by default.

    Other arguments and errors are those of `topk`.
    """
    targets: Pairs = getattr(split, which)
    users = np.unique(targets.users)
    top = topk(user, item, max(ks), split.train if seen is None else seen, users, candidates)
    return judge(top, users, targets, split.n_items, ks)


def judge(top: np.ndarray, users: np.ndarray, targets: Pairs, n_items: int, ks: Sequence[int]) -> Evaluation:
    """Compute the metrics of rankings `top`, int32 [N, max K], best first, -1 where no item is left, of N users."""
    hits = contains(keys(targets, n_items), users[:, None].astype(np.int64) * n_items + top) & (top >= 0)
    counts = np.bincount(targets.users, minlength=int(users.max(initial=-1)) + 1)[users]
    values = {(name, k): metric(hits, counts, k) for name, metric in METRICS.items() for k in ks}
    return Evaluation(users, top, values)


class Result(NamedTuple):
    """A trained model's metrics on valid and test."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]  # protocol and fingerprint


def open_test(user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]) -> Result:
    """Rank the protocol's candidates for every user with a target in valid, and in test: the one place that opens test.

    Vectors are those of the best valid epoch; see `topk`.
    """
    valid = evaluate(user, item, split, "valid", ks, protocol.seen(split, "valid"), protocol.ranked(split, "valid"))
    test = evaluate(user, item, split, "test", ks, protocol.seen(split, "test"), protocol.ranked(split, "test"))
    return Result(valid, test, protocol.label)
