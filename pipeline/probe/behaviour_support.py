"""Behaviour support: the share of an item's content neighbours that any user had together with it.

Ties count by expectation, as in questions.py: constant features score exactly as chance does. Of a large catalogue the
items are drawn by seed, as sampled.py says.

Letters: U users, I items, n items that share a user with another, F feature width, b of a block, K neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.interactions import cooccurrence
from pipeline.ops.rows import unit_rows
from pipeline.probe import sampled
from pipeline.probe.base import Data, Probe, Relearned
from pipeline.probe.questions import TIE
from pipeline.seeds import seed_for
from schemas import TRAIN

NEAREST = 10
"""K"""
BLOCK = 256
"""items whose cosines with all others are held at a time"""


@dataclass(frozen=True)
class Support:
    """The probe's task on one dataset."""

    seen: sp.csr_array
    """R of train, float32 [U, I]"""
    items: np.ndarray
    """int64 [n], ascending"""

    @property
    def k(self) -> int:
        """K, or all other items of a small catalogue."""
        return min(NEAREST, self.seen.shape[1] - 1)

    def together(self, rows: np.ndarray) -> np.ndarray:
        """Return whether any user had both, bool [b, I]; an item is not together with itself."""
        both = (sp.csr_array(self.seen.T)[rows] @ self.seen).toarray() > 0
        both[np.arange(len(rows)), rows] = False
        return both

    def answer(self, features: np.ndarray, seed: int, relearned: Relearned | None = None) -> np.ndarray:
        """Return the share of each item's K nearest by cosine that a user had with it, [n]."""
        units = unit_rows(features)[0].astype(np.float64)
        shares = []
        for at in range(0, len(self.items), BLOCK):
            rows = self.items[at : at + BLOCK]
            cosines = units[rows] @ units.T  # [b, I]
            cosines[np.arange(len(rows)), rows] = -np.inf
            least = np.partition(cosines, -self.k, axis=1)[:, -self.k, None]  # [b, 1], the K-th largest
            above, tied = cosines > least + TIE, np.abs(cosines - least) <= TIE
            room = (self.k - above.sum(1)) / tied.sum(1)  # the chance of each of equal ones
            together = self.together(rows)
            shares.append(((above & together).sum(1) + room * (tied & together).sum(1)) / self.k)
        return np.concatenate(shares)

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `{items: n, "chance": {"share": of all items}, <feature set>: {"share": mean, "share_se": error}}`."""
        n, others = len(self.items), self.seen.shape[1] - 1
        counts = [self.together(self.items[at : at + BLOCK]).sum(1) for at in range(0, n, BLOCK)]
        chance = float((np.concatenate(counts) / others).mean())
        out: dict[str, Any] = {"items": n, "chance": {"share": round(chance, 6)}}
        for name, share in sets.items():
            error = float(share.std() / np.sqrt(n))
            out[name] = {"share": round(float(share.mean()), 6), "share_se": round(error, 6)}
        return out


def ask(data: Data) -> Support | str:
    """Return the task, or why there is none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    seen = cooccurrence.user_item_matrix(user[split == TRAIN], item[split == TRAIN], data.items)
    shared = seen[seen.sum(axis=1) > 1]  # of users with two items
    drawn = sampled.rows(data.items, seed_for("probe", "behaviour_support"))
    items = np.intersect1d(shared.indices, drawn).astype(np.int64)
    return Support(seen, items) if len(items) else "no two items share a train user"


BEHAVIOUR_SUPPORT = Probe(
    ask,
    name="behaviour support",
    figure="share",
    question=f"the share of an item's {NEAREST} nearest that any user had together with it",
    note=f"Which share of an item's {NEAREST} nearest did any user have together with it? An item graph of these "
    "features rests on behaviour to that degree. ± is the standard error over {n:,} items.",
    leak="it learned from train interactions, which this probe asks about",
)
