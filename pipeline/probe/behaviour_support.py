"""Behaviour support: the share of an item's content neighbours that any user had together with it.

Ties count by expectation, as in questions.py: constant features score exactly as chance does. Of a large catalogue the
items are drawn by seed, as sampled.py says.

Letters: U users, I items, n items that share a user with another, F feature width, b of a block, K neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.interactions import cooccurrence
from pipeline.ops.rows import float64_units
from pipeline.probe import sampled
from pipeline.probe.base import Data, Probe, Relearned
from pipeline.probe.questions import TIE
from pipeline.seeds import seed_for
from schemas import TRAIN

NEAREST = 10  # K
BLOCK = 256  # items that are answered at a time, and
COLUMNS = 1 << 15  # items whose cosines with those are held


@dataclass(frozen=True)
class Support:
    """The probe's task on one dataset."""

    seen: sp.csr_array  # R of train, float32 [U, I]
    items: np.ndarray  # int64 [n], ascending

    @cached_property
    def by_item(self) -> sp.csr_array:
        """R transposed, [I, U]."""
        return sp.csr_array(self.seen.T)

    @property
    def k(self) -> int:
        """K, or all other items of a small catalogue."""
        return min(NEAREST, self.seen.shape[1] - 1)

    def together(self, rows: np.ndarray) -> sp.csc_array:
        """Return how many users had both, float32 [b, I], no entry where none had; an item is not with itself."""
        both = self.by_item[rows] @ self.seen
        both[np.arange(len(rows)), rows] = 0
        both.eliminate_zeros()
        return both.tocsc()

    def answer(self, features: np.ndarray, seed: int, relearned: Relearned | None = None) -> np.ndarray:
        """Return the share of each item's K nearest by cosine that a user had with it, [n]."""
        return np.concatenate(
            [self._shares(features, self.items[at : at + BLOCK]) for at in range(0, len(self.items), BLOCK)]
        )

    def _shares(self, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return `answer` of b items, in two passes over the others: what the K-th cosine is, and who reaches it."""
        mine, together = float64_units(features, rows), self.together(rows)

        @lru_cache(1)  # of a catalogue of one block the second pass computes nothing
        def cosines(at: int) -> np.ndarray:
            """Return cosines with the items of a block, [b, c]."""
            found = mine @ float64_units(features, slice(at, at + COLUMNS)).T
            inside = (at <= rows) & (rows < at + COLUMNS)
            found[inside, rows[inside] - at] = -np.inf
            return found

        blocks = range(0, len(features), COLUMNS)
        largest = np.empty((len(rows), 0))  # [b, K]
        for at in blocks:
            both = np.hstack([largest, cosines(at)])
            kept = min(self.k, both.shape[1])
            largest = np.partition(both, -kept, axis=1)[:, -kept:]
        least = largest.min(axis=1, keepdims=True)  # [b, 1], the K-th largest
        counts = np.zeros((4, len(rows)))  # above, equal, and those of each that are together with the item
        for at in blocks:
            above, tied = cosines(at) > least + TIE, np.abs(cosines(at) - least) <= TIE
            had = together[:, at : at + COLUMNS].toarray() > 0
            counts += [found.sum(1) for found in (above, tied, above & had, tied & had)]
        room = (self.k - counts[0]) / counts[1]  # the chance of each of equal ones
        shares: np.ndarray = (counts[2] + room * counts[3]) / self.k
        return shares

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `{items: n, "chance": {"share": of all items}, <feature set>: {"share": mean, "share_se": error}}`."""
        n, others = len(self.items), self.seen.shape[1] - 1
        blocks = (self.together(self.items[at : at + BLOCK]).tocsr() for at in range(0, n, BLOCK))
        chance = float((np.concatenate([np.diff(together.indptr) for together in blocks]) / others).mean())
        out: dict[str, Any] = {"items": n, "chance": {"share": round(chance, 6)}}
        for name, share in sets.items():
            error = float(share.std() / np.sqrt(n))
            out[name] = {"share": round(float(share.mean()), 6), "share_se": round(error, 6)}
        return out


def ask(data: Data) -> Support | str:
    """Return the task, or why there is none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    seen = cooccurrence.user_item_matrix(user[split == TRAIN], item[split == TRAIN], data.items)
    items = sampled.drawn(cooccurrence.shared(seen), data.items, seed_for("probe", "behaviour_support"))
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
