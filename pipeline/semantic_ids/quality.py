"""Codes judged without a generator: how evenly they are used, and how often related items share them.

Every figure is exact, None without a single pair of items. Chance is the score of the same codes at random items.
I items, n of them with codes, L levels, K codes a level. A prefix is an item's first 1, 2, ... L codes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Edges = Iterable[tuple[np.ndarray, np.ndarray]]
"""items and their nearest neighbours, int [b] each, a block at a time; may be read more than once"""
POPULARITY = ("head", "middle", "tail")
"""thirds of the items, by train interactions"""


@dataclass(frozen=True)
class Codes:
    """The semantic IDs that are judged."""

    rows: np.ndarray
    """int64 [n], the items that have codes, ascending"""
    codes: np.ndarray
    """int32 [n, L]"""
    k: int
    suffix: np.ndarray | None = None
    """int32 [n], where the policy adds it"""
    before: np.ndarray | None = None
    """int32 [n, L] before collisions were settled; None: equal to `codes`"""
    cosine: np.ndarray | None = None
    """float32 [n], of vectors and reconstructions; None where not known"""


@dataclass(frozen=True)
class Reference:
    """What codes are judged against: one dataset of I items."""

    items: int
    edges: Edges
    user: np.ndarray
    """int [m], of the train interactions"""
    item: np.ndarray
    """int [m]"""
    label: np.ndarray
    """int64 [I], category of each item; -1 for none"""


def judged(ids: Codes, reference: Reference) -> dict[str, Any]:
    """Return items, collisions, levels (a row per level) and prefixes (a row per length), as codes.json has them."""
    groups = prefixes(ids.codes)
    by_prefix, by_level = (_by_item(columns, ids.rows, reference.items) for columns in (groups, ids.codes))
    kept, agreed = neighbours(by_prefix, by_level, reference.edges)
    bought, bought_by_chance = co_purchase(by_prefix, reference.user, reference.item)
    pure, pure_by_chance = purity(groups, reference.label[ids.rows])
    levels = [
        used(column, ids.k) | {"neighbours": near, "neighbours_chance": sharing(column)}
        for column, near in zip(ids.codes.T, agreed, strict=True)
    ]
    lengths = [
        {
            "length": at + 1,
            "distinct": int(column.max(initial=-1)) + 1,
            "bits": _rounded(_bits(column)),
            "most_bits": _rounded(np.log2(max(min(ids.k ** (at + 1), len(groups)), 1))),
            "neighbours": kept[at],
            "neighbours_chance": sharing(column),
            "co_purchase": bought[at],
            "co_purchase_chance": bought_by_chance[at],
            "category": pure[at],
            "category_chance": pure_by_chance,
        }
        for at, column in enumerate(groups.T)
    ]
    counts = {"items": len(groups), "without_content": reference.items - len(groups)}
    bought_at = np.bincount(reference.item, minlength=reference.items)[ids.rows]
    return counts | {"collisions": collisions(ids, bought_at), "levels": levels, "prefixes": lengths}


def prefixes(codes: np.ndarray) -> np.ndarray:
    """Return a number of each prefix of each item, equal for equal prefixes: int [n, L] -> int64 [n, L]."""
    columns, number = [], np.zeros(len(codes), np.int64)
    base = int(codes.max(initial=0)) + 1
    for column in codes.T:
        number = np.unique(number * base + column, return_inverse=True)[1]  # below n, so that no product overflows
        columns.append(number)
    return np.stack(columns, axis=1)


def collisions(ids: Codes, popularity: np.ndarray) -> dict[str, float | None]:
    """Return the shares of items that share all codes with another, before and after the policy.

    Those before also by popularity, int [n].
    """
    before = _shared(prefixes(ids.codes if ids.before is None else ids.before)[:, -1])
    after = _shared(prefixes(ids.codes if ids.suffix is None else np.column_stack([ids.codes, ids.suffix]))[:, -1])
    ranked, n = np.sort(popularity), len(popularity)
    below, upto = np.searchsorted(ranked, popularity), np.searchsorted(ranked, popularity, "right")
    third = 3 * (2 * n - below - upto) // max(2 * n, 1)  # by the middle rank of equal items, whatever their order
    whole = {"before": _share(before.sum(), len(before)) or 0.0, "after": _share(after.sum(), len(after)) or 0.0}
    parts = {name: before[third == at] for at, name in enumerate(POPULARITY)}
    return whole | {name: _share(part.sum(), len(part)) for name, part in parts.items()}


def used(column: np.ndarray, k: int) -> dict[str, float | None]:
    """Return the use of one level's K codes, int [n]: share in use, perplexity 1 .. K, Gini 0 (even) .. 1."""
    counts = np.sort(np.unique(column, return_counts=True)[1]).astype(np.float64)  # codes without items add nothing
    rank = np.arange(k - len(counts) + 1, k + 1)
    total = max(counts.sum(), 1)
    gini = ((2 * rank - k - 1) * counts).sum() / (k * total)
    return {"used": _rounded(len(counts) / k), "perplexity": _rounded(2 ** _bits(column)), "gini": _rounded(gini)}


def sharing(groups: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Return how often two items share a group, int [n], each drawn by its weight, float64 [n]; None: all alike."""
    weight = np.ones(len(groups)) if weight is None else weight
    same, own = (np.bincount(groups, weight, 1) ** 2).sum(), (weight**2).sum()
    return _share(same - own, weight.sum() ** 2 - own)


def neighbours(
    by_prefix: np.ndarray, by_level: np.ndarray, edges: Edges
) -> tuple[list[float | None], list[float | None]]:
    """Return how often neighbours share each prefix, and each level's code by itself: L shares each.

    `by_prefix`, see `prefixes`, and `by_level` are int64 [I, L], -1 for items without codes. Their edges and those of
    an item to itself do not count.
    """
    counted = [(columns, np.zeros(columns.shape[1], np.int64)) for columns in (by_prefix, by_level)]
    pairs = 0
    for item, other in edges:
        counts = (item != other) & (by_prefix[item, 0] >= 0) & (by_prefix[other, 0] >= 0)
        for columns, together in counted:
            together += (columns[item[counts]] == columns[other[counts]]).sum(axis=0)
        pairs += int(counts.sum())
    prefixed, levelled = ([_share(n, pairs) for n in together.tolist()] for _, together in counted)
    return prefixed, levelled


def co_purchase(
    groups: np.ndarray, user: np.ndarray, item: np.ndarray
) -> tuple[list[float | None], list[float | None]]:
    """Return how often two items of one user share each prefix, and how often items of two users do: L shares each.

    A user is drawn, then two of the user's items; by chance each item from another user, so that popular items are
    drawn as often. Users with a single coded item do not count, repeated interactions count once.

    Args:
        groups: int64 [I, L], see `prefixes`; -1 for items without codes.
        user: int [m], of the interactions.
        item: int [m].
    """
    coded = groups[item, 0] >= 0
    pairs = np.unique(user[coded].astype(np.int64) * len(groups) + item[coded])
    user, item = pairs // max(len(groups), 1), pairs % max(len(groups), 1)
    several = np.bincount(user, minlength=1)[user] > 1
    user, item = np.unique(user[several], return_inverse=True)[1], item[several]
    size = np.bincount(user)
    if not len(size):
        return [None] * groups.shape[1], [None] * groups.shape[1]
    weight = np.bincount(item, 1 / size[user], len(groups))  # the expected draws of each item
    owned = weight > 0
    together = []
    for column in groups.T:
        pair, count = np.unique(user * (int(column.max()) + 1) + column[item], return_counts=True)
        same = np.bincount(pair // (int(column.max()) + 1), count * (count - 1.0), len(size))
        together.append(_rounded((same / (size * (size - 1.0))).mean()))
    return [*together], [sharing(column[owned], weight[owned]) for column in groups.T]


def purity(groups: np.ndarray, label: np.ndarray) -> tuple[list[float | None], float | None]:
    """Return how often two items of one prefix, int64 [n, L], share a category, L shares, and how often any two do.

    `label` is int64 [n], -1 for items without a category, which do not count. The share of the largest category would
    favour small groups.
    """
    groups, label = groups[label >= 0], label[label >= 0]
    base = int(label.max(initial=0)) + 1
    pure = [_share(_pairs(column * base + label), _pairs(column)) for column in groups.T]
    return pure, _share(_pairs(label), len(label) * (len(label) - 1))


def _pairs(groups: np.ndarray) -> int:
    counts = np.unique(groups, return_counts=True)[1]
    return int((counts * (counts - 1)).sum())


def _shared(groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, minlength=1)[groups] > 1


def _by_item(columns: np.ndarray, rows: np.ndarray, items: int) -> np.ndarray:
    every = np.full((items, columns.shape[1]), -1, np.int64)
    every[rows] = columns
    return every


def _bits(groups: np.ndarray) -> float:
    share = np.unique(groups, return_counts=True)[1] / max(len(groups), 1)
    return float(-(np.sort(share) * np.log2(np.sort(share))).sum())


def _share(part: float, of: float) -> float | None:
    return _rounded(part / of) if of > 0 else None


def _rounded(value: float) -> float:
    return round(float(value), 6) + 0.0  # no -0.0
