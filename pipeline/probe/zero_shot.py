"""Zero-shot: is a user's last item among the nearest to the mean of the earlier ones?"""

from dataclasses import replace

import numpy as np

import schemas
from pipeline.probe import sampled
from pipeline.probe.base import Data, Probe
from pipeline.probe.questions import Questions, indicator
from pipeline.seeds import seed_for


def ask(data: Data) -> Questions | str:
    """Return the questions of all interactions by time or order, whatever their split; or why there are none."""
    clock = schemas.clock(data.interactions)
    if clock == "none":
        return "the source has no real timestamps"
    user, item, time = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "timestamp"))
    several = np.flatnonzero(np.bincount(user) > 1)
    asked = sampled.drawn(several, data.items, seed_for("probe", "zero_shot"))
    kept = np.isin(user, asked)
    questions = last_item(user[kept], item[kept], time[kept], data.items)
    order = "The source gives the order of a user's interactions, not their times." if clock == "order" else ""
    note = f"{order} {sampled.note(asked, several, 'users')}".strip()
    return replace(questions, note=note) if len(questions.target) else "no user has two items"


def last_item(user: np.ndarray, item: np.ndarray, timestamp: np.ndarray, n_items: int) -> Questions:
    """Return zero-shot's questions: a user's earlier items, and the last one.

    A repeated (user, item) counts once, at its first time. Of items that share a user's last second each is the
    target in turn, with the others as members: the mean over all orders of equal times. Users with one item
    have no question.

    Args:
        user: int [n], one row an interaction, in any order; item likewise.
        timestamp: int64 [n], Unix seconds or a position.
    """
    order = np.lexsort((timestamp, item, user))
    user, item, timestamp = user[order], item[order], timestamp[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (item[1:] != item[:-1])][: len(user)]
    user, item, timestamp = user[first], item[first], timestamp[first]

    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]][: len(user)])
    sizes = np.diff(np.r_[starts, len(user)])
    latest = np.repeat(np.maximum.reduceat(timestamp, starts) if len(starts) else timestamp, sizes)
    targets = np.flatnonzero((timestamp == latest) & (np.repeat(sizes, sizes) > 1))

    # question q has all rows of its user but the target's
    rows = _ranges(np.repeat(starts, sizes)[targets], np.repeat(sizes, sizes)[targets])
    owner = np.repeat(np.arange(len(targets)), np.repeat(sizes, sizes)[targets])
    kept = rows != targets[owner]
    members = indicator(owner[kept], item[rows[kept]], (len(targets), n_items))
    return Questions(members, item[targets].astype(np.int64), np.unique(user[targets], return_inverse=True)[1])


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return start, start + 1, ... start + size - 1 of every pair, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes - starts, sizes)


ZERO_SHOT = Probe(
    ask,
    name="zero-shot",
    figure="hit@20",
    question="is the item that a user met last among the K nearest to the mean of the earlier ones",
    note="Is the item that a user met last among the K nearest to the mean of the earlier ones? Items of the same last "
    "second are the target in turn. ± is the standard error over {n:,} users.",
    leak="it learned from train interactions, and a user's last item by time may be among them",
)
