"""Recall@K of targets among the items nearest to a user's profile.

G users, I items, n pairs, C candidates, F width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.linalg.ranking import rank_targets
from alignrec.pipeline.runtime.seeds import seed_for

SHARE = 0.2  # share of items that are cold in a draw
# minimum cold items per draw: with fewer, Recall@20 would cover more than half of the candidates
FEWEST = 40
# upper bound on user-item scores: 5,000 users for 20,000 items, fewer for larger catalogues
SCORED = 100_000_000
FEWEST_USERS = 500
MOST_USERS = 5_000  # users sampled; bounds time


@dataclass(frozen=True)
class Profiles:
    """Items in the profiles of users, and their targets."""

    has: sparse.csr_array  # float32 [G, I], 1 where an item is in a user's profile
    user: np.ndarray  # int64 [n], ascending: user of each (user, target) pair
    target: np.ndarray  # int64 [n], one of the candidates
    candidates: np.ndarray  # int64 [C], ascending: items ranked, except those in the user's profile

    def recalls(self, features: np.ndarray, k: int) -> np.ndarray:
        """Return Recall@K per user by cosine of features float32 [I, F]: float64 [G], NaN without a
        target.
        """
        ranks = rank_targets(features, self.has, self.user, self.target, self.candidates)
        users = self.has.shape[0]
        hits = np.bincount(self.user, ranks.hits(k), users)
        with np.errstate(invalid="ignore"):
            recalls: np.ndarray = hits / np.bincount(self.user, minlength=users)
        return recalls


def draw_users(user: np.ndarray, n_items: int, seed: int) -> np.ndarray:
    most = min(MOST_USERS, max(FEWEST_USERS, SCORED // max(1, n_items)))
    shuffled = np.random.default_rng(seed_for("profiles", seed)).permutation(
        np.flatnonzero(np.bincount(user))
    )
    return np.sort(shuffled[:most])


def build_profiles(
    has: tuple[np.ndarray, np.ndarray], finds: tuple[np.ndarray, np.ndarray], who: np.ndarray, n_items: int,
    candidates: np.ndarray | None = None,
) -> Profiles:  # fmt: skip
    """Build profiles of the users `who` from (user, item) pairs.

    Items in a user's profile are never targets.
    """
    candidates = np.arange(n_items) if candidates is None else candidates
    mine, sought = (_profile_matrix(*pairs, who, n_items) for pairs in (has, finds))
    wanted = np.zeros(n_items, np.float32)
    wanted[candidates] = 1
    sought = sparse.csr_array((sought - sought * mine) @ sparse.diags_array(wanted))
    sought.eliminate_zeros()
    user, target = sought.nonzero()
    order = np.lexsort((target, user))
    order = order[np.diff(mine.indptr)[user[order]] > 0]
    return Profiles(mine, user[order].astype(np.int64), target[order].astype(np.int64), candidates)


def draw_cold_profiles(
    has: tuple[np.ndarray, np.ndarray],
    finds: tuple[np.ndarray, np.ndarray],
    n_items: int,
    draws: int,
) -> list[Profiles]:
    """Return draws of cold items, the candidates, which are in no profile.

    None if fewer than FEWEST would be cold.
    """
    items, parts = np.unique(np.r_[has[1], finds[1]]), round(1 / SHARE)
    if len(items) // parts < FEWEST:
        return []
    # draws partition the items, so that each item is cold equally often
    rng = np.random.default_rng(seed_for("cold items"))
    who, found = draw_users(finds[0], n_items, 0), list[Profiles]()
    while len(found) < draws:
        for cold in np.array_split(rng.permutation(items), parts)[: draws - len(found)]:
            warm = ~np.isin(has[1], cold)
            found += [
                build_profiles((has[0][warm], has[1][warm]), finds, who, n_items, np.sort(cold))
            ]
    return found if any(len(draw.user) for draw in found) else []


def cold_recalls(
    draws: Sequence[Profiles], features: np.ndarray | Callable[[np.ndarray], np.ndarray], k: int
) -> np.ndarray:
    """Return Recall@K of users with a target in one of D draws: float64 [G, D], NaN without a
    target in that draw.
    """
    # features: float32 [I, F], or a function of the cold items that learns them without their
    # interactions
    found = [
        draw.recalls(features(draw.candidates) if callable(features) else features, k)
        for draw in draws
    ]
    recalls: np.ndarray = np.stack(found, axis=1)
    return recalls[~np.isnan(recalls).all(axis=1)]


def _profile_matrix(
    user: np.ndarray, item: np.ndarray, who: np.ndarray, items: int
) -> sparse.csr_array:
    kept = np.isin(user, who)
    matrix = user_item_matrix(np.searchsorted(who, user[kept]), item[kept], items)
    matrix.resize((len(who), items))
    return matrix
