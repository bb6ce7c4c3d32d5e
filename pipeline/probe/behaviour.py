"""Probes that predict user behaviour from features: zero-shot, Item-CF and content neighbours."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from alignrec import schemas
from alignrec.pipeline.dataset import cooccurrence
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.probe.questions import Questions, sample_ids
from alignrec.pipeline.probe.registry import Data, Probe
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import TEST, TRAIN


def _sample_groups(groups: np.ndarray, data: Data, probe: str, unit: str) -> tuple[np.ndarray, str]:
    """Return a seeded sample of `groups`, and a caveat if it is smaller."""
    asked = sample_ids(groups, data.items, seed_for("probe", probe))
    few = len(asked) < len(groups)
    return (
        asked,
        f"{len(asked):,} of {len(groups):,} {unit} were asked, drawn by seed." if few else "",
    )


def ask_last_items(data: Data) -> Questions | str:
    clock = schemas.read_clock(data.interactions)
    if clock == "none":
        return "the source has no real timestamps"
    user, item, time = (
        data.interactions[c].to_numpy() for c in ("user_id", "item_id", "timestamp")
    )
    asked, note = _sample_groups(np.flatnonzero(np.bincount(user) > 1), data, "zero_shot", "users")
    kept = np.isin(user, asked)
    questions = last_items(user[kept], item[kept], time[kept], data.items)
    order = (
        "The source gives the order of a user's interactions, not their times."
        if clock == "order"
        else ""
    )
    return (
        replace(questions, note=f"{order} {note}".strip())
        if len(questions.target)
        else "no user has two items"
    )


def last_items(
    user: np.ndarray, item: np.ndarray, timestamp: np.ndarray, n_items: int
) -> Questions:
    """Return the questions of zero-shot, from interactions [n] in any order: earlier items -> last
    item.
    """
    # a repeated (user, item) pair counts at its first time
    order = np.lexsort((timestamp, item, user))
    user, item, timestamp = user[order], item[order], timestamp[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (item[1:] != item[:-1])][: len(user)]
    user, item, timestamp = user[first], item[first], timestamp[first]

    # each item of a user's last second is the target once, which averages over all orders of equal
    # times
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]][: len(user)])
    sizes = np.diff(np.r_[starts, len(user)])
    latest = np.repeat(np.maximum.reduceat(timestamp, starts) if len(starts) else timestamp, sizes)
    targets = np.flatnonzero((timestamp == latest) & (np.repeat(sizes, sizes) > 1))

    # question q has all rows of its user, start .. start + size - 1, except the target's
    start, size = np.repeat(starts, sizes)[targets], np.repeat(sizes, sizes)[targets]
    owner = np.repeat(np.arange(len(targets)), size)
    rows = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size - start, size)
    kept = rows != targets[owner]
    members = user_item_matrix(owner[kept], item[rows[kept]], n_items)
    return Questions(
        members, item[targets].astype(np.int64), np.unique(user[targets], return_inverse=True)[1]
    )


def ask_co_bought(data: Data) -> Questions | str:
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    seen = user_item_matrix(user[split == TRAIN], item[split == TRAIN], data.items)
    # items that share a user with another item
    together = np.flatnonzero(np.bincount(seen[np.diff(seen.indptr) > 1].indices))
    if not len(together):
        return "no two items share a train user"
    asked, note = _sample_groups(together, data, "item_cf", "items")
    return replace(co_bought(seen, asked), note=note)


def co_bought(seen: sparse.csr_array, items: np.ndarray) -> Questions:
    """Return the questions of Item-CF: each of `items` (int64, ascending) -> the one of highest cosine in R, [U, I].

    The cosine is `|U_i & U_j| / sqrt(|U_i| |U_j|)`; equally similar items are the target in turn.
    """
    sources, targets = [], []
    for block, score in cooccurrence.squared_cosines(seen, items):
        row = cooccurrence.row_numbers(score)
        best = score.data == score.max(axis=1).toarray().ravel()[row]
        sources.append(block[row[best]])
        targets.append(score.indices[best])
    j, i = np.concatenate(sources).astype(np.int64), np.concatenate(targets).astype(np.int64)
    members = user_item_matrix(np.arange(len(j)), j, seen.shape[1])
    return Questions(members, i, np.unique(j, return_inverse=True)[1], unit="items")


def ask_test_items(data: Data) -> Questions | str:
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    asked, note = _sample_groups(
        np.intersect1d(user[split == TRAIN], user[split == TEST]), data, "content_knn", "users"
    )
    kept = np.isin(user, asked)
    questions = content_neighbours(user[kept], item[kept], split[kept], data.items)
    return (
        replace(questions, note=note)
        if len(questions.target)
        else "no user has train and test items"
    )


def content_neighbours(
    user: np.ndarray, item: np.ndarray, split: np.ndarray, n_items: int
) -> Questions:
    """Return the questions of a content-only recommender, from interactions [n]: train items -> each test item.

    Their hit rate, averaged by user, is the Recall@K of ranking by mean cosine to the train items, which are masked.
    """
    train = user_item_matrix(user[split == TRAIN], item[split == TRAIN], n_items)
    pairs = np.unique(np.stack([user, item], axis=1)[split == TEST], axis=0).reshape(-1, 2)
    seen = (
        np.asarray(train[pairs[:, 0], pairs[:, 1]]).reshape(-1) > 0
        if len(pairs)
        else np.zeros(0, bool)
    )
    asked, target = pairs[~seen].T
    return Questions(
        train[asked], target.astype(np.int64), np.unique(asked, return_inverse=True)[1]
    )


ZERO_SHOT = Probe(
    ask_last_items,
    name="zero-shot",
    figure="hit@20",
    question="is the item that a user met last among the K nearest to the mean of the earlier ones",
    note="Items of the same last second are the target in turn. ± is the standard error over {n:,} users.",
    leak="it learned from train interactions, and a user's last item by time may be among them",
)
ITEM_CF = Probe(
    ask_co_bought,
    name="Item-CF",
    figure="hit@20",
    question="is the item most co-bought with an item among its K nearest",
    note="± is the standard error over {n:,} items.",
    leak="it learned from train interactions, which this probe asks about",
)
CONTENT_KNN = Probe(
    ask_test_items,
    name="content neighbours",
    figure="recall@20",
    question="all items ranked by mean cosine to the user's train items",
    note="Test Recall@K of a recommender that reads only content. ± is the standard error over {n:,} users.",
)
