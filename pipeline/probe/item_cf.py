"""Item-CF: is the item most often bought together with an item among its nearest?"""

import numpy as np

from pipeline.interactions import cooccurrence
from pipeline.probe.base import Data, Probe
from pipeline.probe.questions import Questions, indicator
from schemas import TRAIN


def ask(data: Data) -> Questions | str:
    """Return the questions of train, or why there are none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    questions = co_bought(user[split == TRAIN], item[split == TRAIN], data.items)
    return questions if len(questions.target) else "no two items share a train user"


def co_bought(user: np.ndarray, item: np.ndarray, n_items: int) -> Questions:
    """Return Item-CF's questions: an item, and the item of highest `|U_i & U_j| / sqrt(|U_i| |U_j|)`.

    Of equally similar items each is the target in turn. Items that share no user with another have no question.

    Args:
        user: int [n], one row a *train* interaction; item likewise.
    """
    sources, targets = [], []
    for first, score in cooccurrence.squared_cosines(cooccurrence.user_item_matrix(user, item, n_items)):
        row = cooccurrence.rows(score)
        best = score.data == score.max(axis=1).toarray().ravel()[row]
        sources.append(row[best] + first)
        targets.append(score.indices[best])
    j, i = np.concatenate(sources).astype(np.int64), np.concatenate(targets).astype(np.int64)
    members = indicator(np.arange(len(j)), j, (len(j), n_items))
    return Questions(members, i, np.unique(j, return_inverse=True)[1], unit="items")


ITEM_CF = Probe(
    ask,
    name="Item-CF",
    figure="hit@20",
    question="is the item most co-bought with an item among its K nearest",
    note="Is the item most often bought together with an item among its K nearest? ± is the standard error over {n:,} "
    "items.",
    leak="it learned from train interactions, which this probe asks about",
)
