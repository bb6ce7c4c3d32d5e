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
# in an evaluation; Electronics (192,403 users x 63,001 items) needs 12 billion
MAX_SCORES = 20_000_000_000
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
    def has_cold_items(self) -> bool:
        return has_cold_items(self.division)

    def cold_items(self, part: Part) -> np.ndarray:
        targets: Pairs = getattr(self, part)
        return np.setdiff1d(targets.items, self.train.items)


def has_cold_items(division: str) -> bool:
    """Return whether a protocol, such as `cold-items 0.2`, hides items from train."""
    return division.startswith(COLD_ITEMS)


def load_split(interactions: pa.Table, n_users: int, n_items: int) -> Split:
    """Convert a table INTERACTIONS.

    Raises UserError for ids outside 0 .. U-1 or 0 .. I-1, or if train is empty.
    """
    users = _checked_ids(interactions, "user_id", n_users)
    items = _checked_ids(interactions, "item_id", n_items)
    part_of_row = interactions["split"].to_numpy()
    is_train = part_of_row == TRAIN
    if not is_train.any():
        raise UserError("interactions: no train rows (split = 0); there is nothing to learn from")

    # duplicate pairs and users without train interactions are dropped (method.md section 6)
    has_train = np.zeros(n_users, bool)
    has_train[users[is_train]] = True
    is_known = has_train[users]
    keys = users.astype(np.int64) * n_items + items
    parts = {}
    for part in (TRAIN, VALID, TEST):
        part_keys = keys[(part_of_row == part) & is_known]
        parts[part] = _decode_keys(np.unique(part_keys), n_items)

    unknown = int((~is_known).sum())
    repeated = len(keys) - unknown - sum(map(len, parts.values()))
    reasons = {"pair repeated in its split": repeated, "user without train interactions": unknown}
    facts = provenance_of(interactions)
    return Split(
        n_users,
        n_items,
        train=parts[TRAIN],
        valid=parts[VALID],
        test=parts[TEST],
        dropped={reason: n for reason, n in reasons.items() if n},
        own=facts.get("split") == "imported",
        division=str(facts.get("division", "")),
    )


def train_of(
    interactions: Iterable[pa.Table], users: np.ndarray, n_users: int, n_items: int
) -> Pairs:
    """Return the train pairs of `users` (ascending), numbered by position in `users`."""
    keys = [np.empty(0, np.int64)]
    for rows in interactions:
        user = _checked_ids(rows, "user_id", n_users)
        item = _checked_ids(rows, "item_id", n_items)
        is_asked = (rows["split"].to_numpy() == TRAIN) & np.isin(user, users)
        positions = np.searchsorted(users, user[is_asked])
        keys.append(positions * n_items + item[is_asked])
    return _decode_keys(np.unique(np.concatenate(keys)), n_items)


def limit_users(parts: Split, max_scores: int = MAX_SCORES) -> Split:
    """Sample users if there are more than `max_scores` / I with targets.

    The same sample for every model.
    """
    users = np.union1d(parts.valid.users, parts.test.users)
    max_users = max(1, max_scores // parts.n_items)
    if len(users) <= max_users:
        return parts

    rng = np.random.default_rng(seed_for("split", "asked"))
    is_drawn = np.zeros(parts.n_users, bool)
    is_drawn[rng.choice(users, max_users, replace=False)] = True
    valid = _pairs_of_users(parts.valid, is_drawn)
    test = _pairs_of_users(parts.test, is_drawn)
    lost = len(parts.valid) + len(parts.test) - len(valid) - len(test)
    return replace(parts, valid=valid, test=test, dropped={**parts.dropped, NOT_DRAWN: lost})


def _pairs_of_users(pairs: Pairs, is_drawn: np.ndarray) -> Pairs:
    rows = is_drawn[pairs.users]
    return Pairs(pairs.users[rows], pairs.items[rows])


def pair_keys(pairs: Pairs, n_items: int) -> np.ndarray:
    return pairs.users.astype(np.int64) * n_items + pairs.items


def unite_pairs(first: Pairs, second: Pairs, n_items: int) -> Pairs:
    return _decode_keys(np.union1d(pair_keys(first, n_items), pair_keys(second, n_items)), n_items)


def contains_keys(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return whether each of `keys` is among the sorted ones, bool of the shape of `keys`."""
    if not len(sorted_keys):
        return np.zeros(keys.shape, bool)
    positions = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(positions, len(sorted_keys) - 1)] == keys


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
