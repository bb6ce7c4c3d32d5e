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

COLD_SHARE = 0.2  # share of items that are cold in a draw
# minimum cold items per draw: with fewer, Recall@20 would cover more than half of the candidates
MIN_COLD_ITEMS = 40
# upper bound on user-item scores: 5,000 users for 20,000 items, fewer for larger catalogues
MAX_SCORES = 100_000_000
MIN_USERS = 500  # drawn whatever their number of scores
MAX_USERS = 5_000  # drawn; bounds time
UserItemPairs = tuple[np.ndarray, np.ndarray]  # users and items, int [n] each


@dataclass(frozen=True)
class Profiles:
    """Items in the profiles of users, and their targets."""

    has: sparse.csr_array  # float32 [G, I], 1 where an item is in a user's profile
    user: np.ndarray  # int64 [n], ascending: user of each (user, target) pair
    target: np.ndarray  # int64 [n], one of the candidates
    candidates: np.ndarray  # int64 [C], ascending: items ranked, except those in the user's profile

    def recalls(self, features: np.ndarray, k: int) -> np.ndarray:
        """Return Recall@K per user by cosine of features, float32 [I, F].

        The result is float64 [G], NaN without a target.
        """
        ranks = rank_targets(features, self.has, self.user, self.target, self.candidates)
        users = self.has.shape[0]
        hits = np.bincount(self.user, ranks.hits(k), users)
        with np.errstate(invalid="ignore"):
            recalls: np.ndarray = hits / np.bincount(self.user, minlength=users)
        return recalls


def draw_users(user: np.ndarray, n_items: int, seed: int) -> np.ndarray:
    n_users = min(MAX_USERS, max(MIN_USERS, MAX_SCORES // max(1, n_items)))
    rng = np.random.default_rng(seed_for("profiles", seed))
    shuffled = rng.permutation(np.flatnonzero(np.bincount(user)))
    return np.sort(shuffled[:n_users])


def build_profiles(
    has: UserItemPairs,
    finds: UserItemPairs,
    users: np.ndarray,
    n_items: int,
    candidates: np.ndarray | None = None,
) -> Profiles:
    """Build profiles of `users` from the pairs `has`, with targets from the pairs `finds`.

    Items in a user's profile are never targets.
    """
    if candidates is None:
        candidates = np.arange(n_items)
    is_candidate = np.zeros(n_items, np.float32)
    is_candidate[candidates] = 1

    profiles = _profile_matrix(has, users, n_items)
    targets = _profile_matrix(finds, users, n_items)
    unknown = targets - targets * profiles
    unknown = sparse.csr_array(unknown @ sparse.diags_array(is_candidate))
    unknown.eliminate_zeros()

    user, target = unknown.nonzero()
    order = np.lexsort((target, user))
    has_profile = np.diff(profiles.indptr)[user[order]] > 0
    order = order[has_profile]
    return Profiles(
        profiles, user[order].astype(np.int64), target[order].astype(np.int64), candidates
    )


def draw_cold_profiles(
    has: UserItemPairs, finds: UserItemPairs, n_items: int, draws: int
) -> list[Profiles]:
    """Return draws of cold items, the candidates, which are in no profile.

    None if fewer than MIN_COLD_ITEMS would be cold.
    """
    items = np.unique(np.r_[has[1], finds[1]])
    n_parts = round(1 / COLD_SHARE)
    if len(items) // n_parts < MIN_COLD_ITEMS:
        return []

    # draws partition the items, so that each item is cold equally often
    rng = np.random.default_rng(seed_for("cold items"))
    users = draw_users(finds[0], n_items, 0)
    profiles: list[Profiles] = []
    while len(profiles) < draws:
        partition = np.array_split(rng.permutation(items), n_parts)
        for cold in partition[: draws - len(profiles)]:
            is_warm = ~np.isin(has[1], cold)
            warm = has[0][is_warm], has[1][is_warm]
            profiles.append(build_profiles(warm, finds, users, n_items, np.sort(cold)))

    has_targets = any(len(draw.user) for draw in profiles)
    return profiles if has_targets else []


def cold_recalls(
    draws: Sequence[Profiles],
    features: np.ndarray | Callable[[np.ndarray], np.ndarray],
    k: int,
) -> np.ndarray:
    """Return Recall@K of users with a target in one of D draws.

    `features` is float32 [I, F], or a function of the cold items that learns them without their
    interactions. The result is float64 [G, D], NaN without a target in that draw.
    """
    recalls_of_draws = []
    for draw in draws:
        vectors = features(draw.candidates) if callable(features) else features
        recalls_of_draws.append(draw.recalls(vectors, k))

    recalls: np.ndarray = np.stack(recalls_of_draws, axis=1)
    has_target = ~np.isnan(recalls).all(axis=1)
    return recalls[has_target]


def _profile_matrix(pairs: UserItemPairs, users: np.ndarray, n_items: int) -> sparse.csr_array:
    user, item = pairs
    is_asked = np.isin(user, users)
    row = np.searchsorted(users, user[is_asked])
    matrix = user_item_matrix(row, item[is_asked], n_items)
    matrix.resize((len(users), n_items))
    return matrix
