"""What becomes of items with equal codes: kept, told apart by a suffix, or moved to the next free last code."""

from collections.abc import Iterable

import numpy as np


def suffixes(codes: np.ndarray) -> np.ndarray:
    """Return the number of each item among those of equal codes: int32 [n, L] -> int32 [n], in item order from 0."""
    return _numbers(_groups(codes))


def moving(codes: np.ndarray, k: int) -> np.ndarray:
    """Return which items `reassigned` gives another last code, bool [n], of codes int32 [n, L].

    Of items of equal codes the first keeps its last code. The others move, as many as there are unused last codes
    after their first L - 1 codes. Item order takes one pass over the vectors; closest first would hold those of all
    items that collide.
    """
    collides = suffixes(codes) > 0
    prefix = _groups(codes[:, :-1])
    free = k - np.bincount(prefix[~collides], minlength=prefix.max(initial=0) + 1)  # the first of each id is no other's
    moves = np.zeros(len(codes), bool)
    rows = np.flatnonzero(collides)
    moves[rows] = _numbers(prefix[rows]) < free[prefix[rows]]
    return moves


def reassigned(codes: np.ndarray, distances: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return codes, int32 [n, L], in which as few items as possible share all; the others take the nearest free one.

    `distances` yields rows int64 [b] of the items that are `moving`, in item order, and how far each value of the last
    code is from the item, float32 [b, K].
    """
    settled, prefix = codes.copy(), _groups(codes[:, :-1])
    taken: dict[int, set[int]] = {}
    order = np.argsort(prefix, kind="stable")
    starts = np.searchsorted(prefix[order], np.arange(prefix.max(initial=-1) + 2))
    for rows, far in distances:
        for row, costs in zip(rows.tolist(), far, strict=True):  # one by one, as each takes a code from those after it
            group = int(prefix[row])
            if group not in taken:
                taken[group] = set(codes[order[starts[group] : starts[group + 1]], -1].tolist())
            costs[list(taken[group])] = np.inf
            settled[row, -1] = costs.argmin()
            taken[group].add(int(settled[row, -1]))
    return settled


def _groups(codes: np.ndarray) -> np.ndarray:
    if not codes.size:
        return np.zeros(len(codes), np.int64)
    return np.asarray(np.unique(codes, axis=0, return_inverse=True)[1]).reshape(-1)


def _numbers(group: np.ndarray) -> np.ndarray:
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    number = np.empty(len(group), np.int32)
    number[order] = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    return number
