"""A run's figures by length of history, by popularity of the item, and over the catalogue.

Letters: N test users, K cutoff, I items, P pairs of test user and target.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from alignrec.pipeline.evaluation.metrics import Evaluation
from alignrec.pipeline.interactions.split import Split

# bounds, inclusive, of the train interactions of each group of users; in 5-core data users have at least three
HISTORIES = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 9), (10, 19), (20, None))
PARTS = 10
USER_METRICS = ("recall", "ndcg")


class Figure(NamedTuple):
    """A row of table SLICES, except the columns that identify the run."""

    slice: str
    label: str
    n: int
    metric: str
    k: int
    value: float | None  # None where n is 0


def slice_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[Figure]:
    for label, chosen in by_history(split, evaluation.users):
        for metric in USER_METRICS:
            for k in ks:
                yield _mean_figure("history", label, metric, k, evaluation.per_user[metric, k][chosen])
    yield from popularity_figures(evaluation, split, ks)
    yield from catalogue_figures(evaluation, split, ks)


def by_history(split: Split, users: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each group's label and its members, bool [N]."""
    length = np.bincount(split.train.users, minlength=split.n_users)[users]
    for first, last in HISTORIES:
        label = f"{first}+" if last is None else str(first) if first == last else f"{first}-{last}"
        yield label, (length >= first) & (length <= (last or np.inf))


def popularity_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[Figure]:
    """Yield recall of targets and exposure (share of recommendations) by popularity; n counts targets."""
    part = popularity_parts(split)
    at = np.searchsorted(evaluation.users, split.test.users)
    hit = evaluation.top[at] == split.test.items[:, None]  # [P, max K]
    recommended = np.where(evaluation.top >= 0, part[evaluation.top], -1)  # [N, max K]
    for number in range(PARTS + 1):
        label = "cold" if number == 0 else str(number)
        of_part = part[split.test.items] == number
        n = int(of_part.sum())
        for k in ks:
            yield _mean_figure("popularity", label, "recall", k, hit[of_part, :k].any(1))
            share = float((recommended[:, :k] == number).sum() / max(1, (recommended[:, :k] >= 0).sum()))
            yield Figure("popularity", label, n, "exposure", k, share)


def popularity_parts(split: Split, n: int = PARTS) -> np.ndarray:
    """Return each item's quantile by train interactions, 1 (fewest) .. n, or 0 for cold items, int64 [I]."""
    counts = np.bincount(split.train.items, minlength=split.n_items)
    warm = np.flatnonzero(counts)
    rank = np.argsort(np.argsort(counts[warm], kind="stable"), kind="stable")
    part = np.zeros(split.n_items, np.int64)
    part[warm] = 1 + rank * n // len(warm)
    return part


def catalogue_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[Figure]:
    """Yield coverage, Gini of exposure, and novelty in bits; n counts users."""
    # coverage: share of items recommended at least once
    # novelty: mean -log2 of the share of train users who have a recommended item; items without users count as one
    counts = np.bincount(split.train.items, minlength=split.n_items)
    information = -np.log2(np.maximum(counts, 1) / len(np.unique(split.train.users)))
    for k in ks:
        recommended = evaluation.top[:, :k]
        recommended = recommended[recommended >= 0]
        places = np.bincount(recommended, minlength=split.n_items)
        yield Figure("catalogue", "all", len(evaluation.users), "coverage", k, np.count_nonzero(places) / split.n_items)
        yield Figure("catalogue", "all", len(evaluation.users), "gini", k, gini(places))
        novelty = float(information[recommended].mean()) if len(recommended) else None
        yield Figure("catalogue", "all", len(evaluation.users), "novelty", k, novelty)


def gini(counts: np.ndarray) -> float | None:
    """Return the Gini coefficient of counts, int [I]; None if all are 0."""
    n, total = len(counts), counts.sum()
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float((weights * np.sort(counts)).sum() / (n * total)) if total else None


def _mean_figure(what: str, label: str, metric: str, k: int, values: np.ndarray) -> Figure:
    return Figure(what, label, len(values), metric, k, float(values.mean()) if len(values) else None)
