"""Item-CF: is the item most often bought together with an item among its nearest?"""

from dataclasses import replace

import numpy as np
from scipy import sparse

from pipeline.interactions import cooccurrence
from pipeline.probe import sampled
from pipeline.probe.base import Data, Probe
from pipeline.probe.questions import Questions, indicator
from pipeline.seeds import seed_for
from schemas import TRAIN


def ask(data: Data) -> Questions | str:
    """Return the questions of train, or why there are none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    seen = cooccurrence.user_item_matrix(user[split == TRAIN], item[split == TRAIN], data.items)
    together = cooccurrence.shared(seen)
    if not len(together):
        return "no two items share a train user"
    asked = sampled.drawn(together, data.items, seed_for("probe", "item_cf"))
    return replace(co_bought(seen, asked), note=sampled.note(asked, together, "items"))


def co_bought(seen: sparse.csr_array, items: np.ndarray) -> Questions:
    """Return Item-CF's questions: an item, and the item of highest `|U_i & U_j| / sqrt(|U_i| |U_j|)`.

    Of equally similar items each is the target in turn.

    Args:
        seen: R of train, [U, I].
        items: int64, ascending, those that ask; each shares a user with another.
    """
    sources, targets, n_items = [], [], seen.shape[1]
    for block, score in cooccurrence.squared_cosines(seen, items):
        row = cooccurrence.rows(score)
        best = score.data == score.max(axis=1).toarray().ravel()[row]
        sources.append(block[row[best]])
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
