"""Probes that predict user behaviour from features: zero-shot, Item-CF and content neighbours."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from alignrec import schemas
from alignrec.pipeline.dataset import cooccurrence
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.evaluation.probe.questions import Questions, sample_ids
from alignrec.pipeline.evaluation.probe.registry import Data, Probe
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import TEST, TRAIN


def _sample_groups(groups: np.ndarray, data: Data, probe: str, unit: str) -> tuple[np.ndarray, str]:
    """Return a seeded sample of `groups`, and a caveat if it is smaller."""
    sample = sample_ids(groups, data.items, seed_for("probe", probe))
    if len(sample) == len(groups):
        return sample, ""
    return sample, f"{len(sample):,} of {len(groups):,} {unit} were asked, drawn by seed."


def ask_last_items(data: Data) -> Questions | str:
    clock = schemas.read_clock(data.interactions)
    if clock == "none":
        return "the source has no real timestamps"

    user, item, time = data.columns("user_id", "item_id", "timestamp")
    several = np.flatnonzero(np.bincount(user) > 1)
    users, note = _sample_groups(several, data, "zero_shot", "users")
    is_asked = np.isin(user, users)
    questions = last_items(user[is_asked], item[is_asked], time[is_asked], data.items)
    if not len(questions.target):
        return "no user has two items"

    if clock == "order":
        order = "The source gives the order of a user's interactions, not their times."
        note = f"{order} {note}".strip()
    return replace(questions, note=note)


def last_items(
    user: np.ndarray, item: np.ndarray, timestamp: np.ndarray, n_items: int
) -> Questions:
    """Return the questions of zero-shot: earlier items -> last item.

    From interactions [n] in any order.
    """
    # a repeated (user, item) pair counts at its first time
    order = np.lexsort((timestamp, item, user))
    user, item, timestamp = user[order], item[order], timestamp[order]
    is_new = _differs_from_previous(user) | _differs_from_previous(item)
    user, item, timestamp = user[is_new], item[is_new], timestamp[is_new]

    # each item of a user's last second is the target once, which averages over all orders of equal
    # times
    starts = np.flatnonzero(_differs_from_previous(user))
    sizes = np.diff(np.r_[starts, len(user)])
    latest = timestamp
    if len(starts):
        latest = np.repeat(np.maximum.reduceat(timestamp, starts), sizes)
    has_others = np.repeat(sizes, sizes) > 1
    targets = np.flatnonzero((timestamp == latest) & has_others)

    # question q has all rows of its user, start .. start + size - 1, except the target's
    start = np.repeat(starts, sizes)[targets]
    size = np.repeat(sizes, sizes)[targets]
    question = np.repeat(np.arange(len(targets)), size)
    offset = np.cumsum(size) - size - start  # of a question's first member from its row
    rows = np.arange(len(question)) - np.repeat(offset, size)
    is_member = rows != targets[question]
    members = user_item_matrix(question[is_member], item[rows[is_member]], n_items)
    _, group = np.unique(user[targets], return_inverse=True)
    return Questions(members, item[targets].astype(np.int64), group)


def _differs_from_previous(values: np.ndarray) -> np.ndarray:
    """Return which values differ from the one before, bool [n]; the first does."""
    return np.r_[True, values[1:] != values[:-1]][: len(values)]


def ask_co_bought(data: Data) -> Questions | str:
    user, item, split = data.columns("user_id", "item_id", "split")
    is_train = split == TRAIN
    seen = user_item_matrix(user[is_train], item[is_train], data.items)
    # items that share a user with another item
    several = seen[np.diff(seen.indptr) > 1]
    together = np.flatnonzero(np.bincount(several.indices))
    if not len(together):
        return "no two items share a train user"

    items, note = _sample_groups(together, data, "item_cf", "items")
    return replace(co_bought(seen, items), note=note)


def co_bought(seen: sparse.csr_array, items: np.ndarray) -> Questions:
    """Return the questions of Item-CF: each item -> the one of highest cosine in R, [U, I].

    `items` are int64, ascending. The cosine is `|U_i & U_j| / sqrt(|U_i| |U_j|)`; equally similar
    items are the target in turn.
    """
    sources = []
    targets = []
    for block, score in cooccurrence.squared_cosines(seen, items):
        row = cooccurrence.row_numbers(score)
        highest = score.max(axis=1).toarray().ravel()
        is_best = score.data == highest[row]
        sources.append(block[row[is_best]])
        targets.append(score.indices[is_best])

    source = np.concatenate(sources).astype(np.int64)
    target = np.concatenate(targets).astype(np.int64)
    members = user_item_matrix(np.arange(len(source)), source, seen.shape[1])
    _, group = np.unique(source, return_inverse=True)
    return Questions(members, target, group, unit="items")


def ask_test_items(data: Data) -> Questions | str:
    user, item, split = data.columns("user_id", "item_id", "split")
    eligible_users = np.intersect1d(user[split == TRAIN], user[split == TEST])
    users, note = _sample_groups(eligible_users, data, "content_knn", "users")
    is_asked = np.isin(user, users)
    questions = content_neighbours(user[is_asked], item[is_asked], split[is_asked], data.items)
    if not len(questions.target):
        return "no user has train and test items"
    return replace(questions, note=note)


def content_neighbours(
    user: np.ndarray, item: np.ndarray, split: np.ndarray, n_items: int
) -> Questions:
    """Return the questions of a content-only recommender: train items -> each test item.

    From interactions [n]. Their hit rate, averaged by user, is the Recall@K of ranking by mean
    cosine to the train items, which are masked.
    """
    is_train = split == TRAIN
    train = user_item_matrix(user[is_train], item[is_train], n_items)
    pairs = np.stack([user, item], axis=1)[split == TEST]
    pairs = np.unique(pairs, axis=0).reshape(-1, 2)
    is_seen = np.zeros(0, bool)
    if len(pairs):
        is_seen = np.asarray(train[pairs[:, 0], pairs[:, 1]]).reshape(-1) > 0

    users, targets = pairs[~is_seen].T
    _, group = np.unique(users, return_inverse=True)
    return Questions(train[users], targets.astype(np.int64), group)


ZERO_SHOT = Probe(
    ask_last_items,
    name="zero-shot",
    figure="hit@20",
    question="is the item that a user met last among the K nearest to the mean of the earlier ones",
    note="Items of the same last second are the target in turn. ± is the standard error over {n:,} "
    "users.",
)
ITEM_CF = Probe(
    ask_co_bought,
    name="Item-CF",
    figure="hit@20",
    question="is the item most co-bought with an item among its K nearest",
    note="± is the standard error over {n:,} items.",
)
CONTENT_KNN = Probe(
    ask_test_items,
    name="content neighbours",
    figure="recall@20",
    question="all items ranked by mean cosine to the user's train items",
    note="Test Recall@K of a recommender that reads only content. ± is the standard error over "
    "{n:,} users.",
)
