"""Which items many users have in common: what the collaborative term of pre-training brings together.

Letters: I items, M partners of an item at most, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from pipeline.interactions import cooccurrence
from schemas import TRAIN

MOST = 10
"""partners kept of each item, M; bounds memory"""


def partners(interactions: pa.Table, n_items: int, least: int) -> np.ndarray:
    """Return the items that share most users with each item, by `closeness.squared`.

    Args:
        interactions: schema INTERACTIONS; only rows of the train split are read.
        n_items: I.
        least: users that a pair must have in common.

    Returns:
        int64 [I, M], closest first, of equally close ones the lower id; -1 where there are fewer.
    """
    train = interactions["split"].to_numpy() == TRAIN
    user, item = (interactions[c].to_numpy()[train] for c in ("user_id", "item_id"))
    out = np.full((n_items, MOST), -1, np.int64)
    for first, score in cooccurrence.squared(cooccurrence.bought(user, item, n_items), least):
        near = cooccurrence.largest(score, MOST)
        row = cooccurrence.rows(near)
        order = np.lexsort((near.indices, -near.data, row))
        place = np.arange(len(row)) - near.indptr[row]  # within the item's own run
        out[first + row, place] = near.indices[order]
    return out


def draw(found: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Draw one partner for each row of int64 [B, M], each as likely: int64 [B], -1 where there is none."""
    lots = np.array([rng.random() for rng in rngs])
    have = (found >= 0).sum(axis=1)
    return np.where(have > 0, found[np.arange(len(found)), (lots * have).astype(int)], -1)
