"""Users and items drawn by seed from a large catalogue, so that a probe's time grows only with the items."""

import numpy as np

COSINES = 400_000_000
"""of each feature set, for one probe or one search of neighbours: 20,000 items are all compared with all"""
FEWEST = 2000  # users or items drawn from the largest catalogue


def most(items: int) -> int:
    """Return how many users, or items with their neighbours, are compared with all items of a catalogue."""
    return max(FEWEST, COSINES // max(1, items))


def rows(items: int, seed: int) -> np.ndarray:
    """Return the items whose neighbours are searched, int64, ascending: all, or `most` of them."""
    return drawn(np.arange(items), items, seed)


def drawn(ids: np.ndarray, items: int, seed: int) -> np.ndarray:
    """Return the users or items that are asked, ascending: all of some ids, or `most` of them."""
    count = most(items)
    return ids if len(ids) <= count else np.sort(np.random.default_rng(seed).choice(ids, count, replace=False))


def note(asked: np.ndarray, of: np.ndarray, unit: str) -> str:
    """Return the caveat of a probe that asked only some users or items; empty if it asked all."""
    return f"{len(asked):,} of {len(of):,} {unit} were asked, drawn by seed." if len(asked) < len(of) else ""
