"""What becomes of items with equal codes: kept, told apart by a suffix, or moved to the next free last code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def suffixes(codes: np.ndarray) -> np.ndarray:
    """Return the number of each item among those of equal codes: int32 [n, L] -> int32 [n], in item order from 0."""
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    number = np.empty(len(codes), np.int32)
    number[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return number


def reassigned(codes: np.ndarray, distances: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return codes in which as few items as possible share all: of equal ones the first item keeps its last code.

    Args:
        codes: int32 [n, L].
        distances: rows int64 [b] -> how far each value of the last code is from the item, float32 [b, K].

    Returns:
        int32 [n, L]; items for which no last code is free keep theirs.
    """
    codes = codes.copy()
    taken: dict[bytes, set[int]] = {}
    for row in codes:
        taken.setdefault(row[:-1].tobytes(), set()).add(int(row[-1]))
    for row in np.flatnonzero(suffixes(codes)):  # one by one, as each takes a code from those that follow
        used = taken[codes[row, :-1].tobytes()]
        near = np.argsort(distances(np.array([row]))[0], kind="stable")
        free = next((int(code) for code in near if int(code) not in used), None)
        if free is not None:
            codes[row, -1] = free
            used.add(free)
    return codes
