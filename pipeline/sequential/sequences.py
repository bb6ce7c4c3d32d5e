"""Users' items in time order, divided by leave-one-out. Letters: U users, I items, N interactions, T longest history.

A user's last item is test's, the one before valid's, all others train's. Items of equal time are ordered by item_id. A
pair that is repeated counts at its first time. An interaction without a time, and a user with fewer than three items,
are left out and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.interactions.split import Pairs, Part, Split

DIVISION = "leave-one-out"
PAD = -1
"""stands before a history that is shorter than its row"""
FEWEST = 3
"""items of a user: one for train, valid and test each"""
BACK: dict[Literal["train", "valid", "test"], int] = {"train": 3, "valid": 2, "test": 1}
"""part -> how far from a user's end its last item is"""


@dataclass(frozen=True)
class Sequences:
    """The items of each user, oldest first."""

    n_users: int
    """of the data set, those left out included"""
    n_items: int
    """I"""
    users: np.ndarray
    """int32 [U], ascending"""
    items: np.ndarray
    """int32 [N], user after user"""
    start: np.ndarray
    """int64 [U+1]: those of user u are items[start[u] : start[u+1]]"""
    dropped: Mapping[str, int]
    """rows of the table that are not among them, by reason"""

    def last(self, part: Literal["train", "valid", "test"]) -> np.ndarray:
        """Return where in `items` each user's last item of a part is, int64 [U]."""
        return self.start[1:] - BACK[part]

    def windows(self, rows: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
        """Return the items before `ends`, the latest last: int64 [b, length], PAD where a user has no more.

        Args:
            rows: int [b], of users.
            ends: int64 [b], places in `items`; that at the end itself is not among them.
        """
        at = ends[:, None] + np.arange(-length, 0)
        return np.where(at >= self.start[rows][:, None], self.items[np.maximum(at, 0)].astype(np.int64), PAD)

    def seen(self, rows: np.ndarray, part: Part) -> np.ndarray:
        """Return what users had before the target of a part, bool [b, I]: it is not recommended."""
        ends = self.last(part)[rows]
        counts = ends - self.start[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        place = (
            np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(self.start[rows], counts)
        )
        seen = np.zeros((len(rows), self.n_items), bool)
        seen[row, self.items[place]] = True
        return seen

    def split(self) -> Split:
        """Return train, valid and test as pairs, for the protocol and the metrics."""
        owner = np.repeat(self.users, np.diff(self.start))
        back = np.repeat(self.start[1:], np.diff(self.start)) - np.arange(len(self.items))
        train, valid, test = (
            _pairs(owner[where], self.items[where]) for where in (back >= BACK["train"], back == 2, back == 1)
        )
        return Split(self.n_users, self.n_items, train, valid, test, self.dropped)


def load(interactions: pa.Table, n_users: int, n_items: int) -> Sequences:
    """Return the sequences of a table of interactions, whatever its own split.

    Args:
        interactions: schema INTERACTIONS, any order.

    Raises:
        UserError: no interaction has a time, or no user has three items.
    """
    timed = interactions.filter(interactions["timestamp"].is_valid())
    if not len(timed):
        raise UserError("interactions: study.generative needs times, and this source has none; leave it empty")
    users, items, times = (timed[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    order = np.lexsort((items, times, users))
    users, items = users[order], items[order]
    _, first = np.unique(users.astype(np.int64) * n_items + items, return_index=True)
    repeated = len(users) - len(first)
    kept = np.sort(first)
    users, items = users[kept], items[kept]
    enough = np.bincount(users, minlength=n_users) >= FEWEST
    rows = enough[users]
    if not rows.any():
        raise UserError(f"interactions: study.generative needs users with {FEWEST} items, and there is none")
    reasons = {
        "interaction without a time": len(interactions) - len(timed),
        "pair repeated": repeated,
        f"interaction of a user with fewer than {FEWEST} items": int((~rows).sum()),
    }
    owners, counts = np.unique(users[rows], return_counts=True)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Sequences(
        n_users, n_items, owners.astype(np.int32), items[rows].astype(np.int32), start,
        {reason: n for reason, n in reasons.items() if n},
    )  # fmt: skip


def _pairs(users: np.ndarray, items: np.ndarray) -> Pairs:
    order = np.lexsort((items, users))
    return Pairs(users[order], items[order])
