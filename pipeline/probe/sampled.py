"""What is asked of a large catalogue: questions and items drawn by seed, so that time grows with the items alone.

N questions in G groups, I items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it loads SciPy, which the comparison of two releases does without
    from pipeline.probe.questions import Questions

COSINES = 400_000_000
"""of each feature set, for one probe or one search of neighbours: 20,000 items are all compared with all"""
FEWEST = 2000
"""questions or items that are drawn from the largest catalogue"""


def most(items: int) -> int:
    """Return how many questions, or items with their neighbours, are looked at among so many items."""
    return max(FEWEST, COSINES // max(1, items))


def rows(items: int, seed: int) -> np.ndarray:
    """Return the items whose neighbours are searched, int64, ascending: all of them, or so many as `most` says."""
    count = most(items)
    return np.arange(items) if items <= count else _drawn(items, count, seed)


def questions(asked: Questions, seed: int) -> Questions:
    """Return the questions of groups drawn without replacement, about `most` of them; of a few questions, all.

    Groups keep all of their questions and their order. The note says how many were drawn.
    """
    count = most(asked.members.shape[1])
    if len(asked.target) <= count:
        return asked
    groups = _drawn(asked.groups, max(1, asked.groups * count // len(asked.target)), seed)
    kept = np.flatnonzero(np.isin(asked.group, groups))
    said = f"{len(groups):,} of {asked.groups:,} {asked.unit} were asked, drawn by seed."
    return replace(
        asked,
        members=asked.members[kept],
        target=asked.target[kept],
        group=np.searchsorted(groups, asked.group[kept]),
        note=" ".join(text for text in (asked.note, said) if text),
    )


def _drawn(of: int, count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(of, count, replace=False))
