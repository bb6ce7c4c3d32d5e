"""Content neighbours: a recommender that reads only content, evaluated on test."""

from dataclasses import replace

import numpy as np

from pipeline.probe import sampled
from pipeline.probe.base import Data, Probe
from pipeline.probe.questions import Questions, indicator
from pipeline.seeds import seed_for
from schemas import TEST, TRAIN


def ask(data: Data) -> Questions | str:
    """Return the questions of train and test, or why there are none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    both = np.flatnonzero(_has(user, split == TRAIN) & _has(user, split == TEST))
    asked = sampled.drawn(both, data.items, seed_for("probe", "content_knn"))
    kept = np.isin(user, asked)
    questions = content_neighbours(user[kept], item[kept], split[kept], data.items)
    note = sampled.note(asked, both, "users")
    return replace(questions, note=note) if len(questions.target) else "no user has train and test items"


def _has(user: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which users have one of some interactions, bool [U]."""
    return np.bincount(user[rows], minlength=int(user.max(initial=-1)) + 1) > 0


def content_neighbours(user: np.ndarray, item: np.ndarray, split: np.ndarray, n_items: int) -> Questions:
    """Return the questions of a recommender that reads only content: a user's train items, each test item a target.

    Its hit rate, averaged by user, is Recall@K of ranking all items by mean cosine to the train items, train masked.

    Args:
        user: int [n], one row an interaction; item and split likewise.
    """
    train = indicator(user[split == TRAIN], item[split == TRAIN], (int(user.max(initial=-1)) + 1, n_items))
    train.data[:] = 1.0
    pairs = np.unique(np.stack([user, item], axis=1)[split == TEST], axis=0).reshape(-1, 2)
    members = train[pairs[:, 0]]
    seen = np.asarray(train[pairs[:, 0], pairs[:, 1]]).reshape(-1) > 0 if len(pairs) else np.zeros(0, bool)
    kept = (np.diff(members.indptr) > 0) & ~seen
    return Questions(members[kept], pairs[kept, 1].astype(np.int64), np.unique(pairs[kept, 0], return_inverse=True)[1])


CONTENT_KNN = Probe(
    ask,
    name="content neighbours",
    figure="recall@20",
    question="all items ranked by mean cosine to the user's train items",
    note="A recommender that reads only content: all items ranked by mean cosine to the user's train items; test "
    "Recall@K. ± is the standard error over {n:,} users.",
)
