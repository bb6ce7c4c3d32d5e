"""Train, valid and test interactions as arrays. U users, I items, N pairs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import COLD_ITEMS, TEST, TRAIN, VALID, provenance_of

Part = Literal["valid", "test"]
# upper bound on user-item scores in an evaluation; Electronics (192,403 users x 63,001 items) needs 12 billion
SCORES = 20_000_000_000
NOT_DRAWN = "target of a user who was not drawn"


@dataclass(frozen=True)
class Pairs:
    """User-item pairs, ordered by user, then item."""

    users: np.ndarray  # int32 [N]
    items: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Split:
    """Train, valid and test pairs of a dataset."""

    n_users: int
    n_items: int
    train: Pairs
    valid: Pairs
    test: Pairs
    # reason -> rows in none of the three parts
    dropped: Mapping[str, int] = field(default_factory=dict)
    own: bool = False  # whether the split came with the ratings
    division: str = ""  # protocol with its setting if it needs content, such as `cold-items 0.2`

    @property
    def is_cold(self) -> bool:
        return self.division.startswith(COLD_ITEMS)

    def cold_items(self, part: Part) -> np.ndarray:
        targets: Pairs = getattr(self, part)
        return np.setdiff1d(targets.items, self.train.items)


def load_split(interactions: pa.Table, n_users: int, n_items: int) -> Split:
    """Convert a table INTERACTIONS; raise UserError for ids outside 0 .. U-1 or 0 .. I-1, or if train is empty."""
    users, items = (
        _checked_ids(interactions, "user_id", n_users),
        _checked_ids(interactions, "item_id", n_items),
    )
    which, pairs = interactions["split"].to_numpy(), users.astype(np.int64) * n_items + items
    if not (which == TRAIN).any():
        raise UserError("interactions: no train rows (split = 0); there is nothing to learn from")
    # duplicate pairs and users without train interactions are dropped (method.md section 6)
    known = np.zeros(n_users, bool)
    known[users[which == TRAIN]] = True
    known_user = known[users]
    train, valid, test = (
        _decode_keys(np.unique(pairs[(which == part) & known_user]), n_items)
        for part in (TRAIN, VALID, TEST)
    )
    unknown = int((~known_user).sum())
    repeated = len(pairs) - unknown - len(train) - len(valid) - len(test)
    reasons = {"pair repeated in its split": repeated, "user without train interactions": unknown}
    dropped = {reason: n for reason, n in reasons.items() if n}
    facts = provenance_of(interactions)
    own, division = facts.get("split") == "imported", str(facts.get("division", ""))
    return Split(n_users, n_items, train, valid, test, dropped, own, division)


def train_of(
    interactions: Iterable[pa.Table], users: np.ndarray, n_users: int, n_items: int
) -> Pairs:
    """Return the train pairs of `users` (ascending), numbered by position in `users`."""
    found = [np.empty(0, np.int64)]
    for part in interactions:
        user, item = _checked_ids(part, "user_id", n_users), _checked_ids(part, "item_id", n_items)
        own = (part["split"].to_numpy() == TRAIN) & np.isin(user, users)
        found.append(np.searchsorted(users, user[own]) * n_items + item[own])
    return _decode_keys(np.unique(np.concatenate(found)), n_items)


def limit_users(parts: Split) -> Split:
    """Sample users if there are more than SCORES / I with targets; the same sample for every model."""
    users = np.union1d(parts.valid.users, parts.test.users)
    if len(users) <= (most := max(1, SCORES // parts.n_items)):
        return parts
    drawn = np.zeros(parts.n_users, bool)
    drawn[np.random.default_rng(seed_for("split", "asked")).choice(users, most, replace=False)] = (
        True
    )
    valid, test = (
        Pairs(p.users[drawn[p.users]], p.items[drawn[p.users]]) for p in (parts.valid, parts.test)
    )
    lost = len(parts.valid) + len(parts.test) - len(valid) - len(test)
    return replace(parts, valid=valid, test=test, dropped={**parts.dropped, NOT_DRAWN: lost})


def pair_keys(pairs: Pairs, n_items: int) -> np.ndarray:
    return pairs.users.astype(np.int64) * n_items + pairs.items


def unite_pairs(one: Pairs, other: Pairs, n_items: int) -> Pairs:
    return _decode_keys(np.union1d(pair_keys(one, n_items), pair_keys(other, n_items)), n_items)


def contains_keys(sorted_keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if not len(sorted_keys):
        return np.zeros(wanted.shape, bool)
    at = np.searchsorted(sorted_keys, wanted)
    return sorted_keys[np.minimum(at, len(sorted_keys) - 1)] == wanted


def _decode_keys(unique: np.ndarray, n_items: int) -> Pairs:
    """Invert `pair_keys`, for ascending keys."""
    return Pairs((unique // n_items).astype(np.int32), (unique % n_items).astype(np.int32))


def _checked_ids(table: pa.Table, column: str, n: int) -> np.ndarray:
    ids = table[column].to_numpy()
    wrong = np.flatnonzero((ids < 0) | (ids >= n))
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            f"interactions: column '{column}', row {row}: {ids[row]} is not in 0 .. {n - 1}"
        )
    return ids
