"""Which items many users have in common: what the collaborative term of pre-training brings together.

Letters: I items, M partners of an item at most, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from scipy import sparse

from schemas import TRAIN

MOST = 10
"""partners kept of each item, M; bounds memory"""


def partners(interactions: pa.Table, n_items: int, least: int, block: int = 2048) -> np.ndarray:
    """Return the items that share most users with each item, by `|U_i & U_j| / sqrt(|U_i| |U_j|)`.

    Args:
        interactions: schema INTERACTIONS; only rows of the train split are read.
        n_items: I.
        least: users that a pair must have in common.
        block: items whose co-occurrences are held at a time; bounds memory.

    Returns:
        int64 [I, M], closest first, of equally close ones the lower id; -1 where there are fewer.
    """
    train = interactions["split"].to_numpy() == TRAIN
    user, item = interactions["user_id"].to_numpy()[train], interactions["item_id"].to_numpy()[train]
    shape = (int(user.max(initial=-1)) + 1, n_items)
    buys = sparse.csc_array((np.ones(len(user)), (user, item)), shape=shape)
    buys.data[:] = 1.0  # a repeated purchase is one user
    popularity = np.diff(buys.indptr)
    out = np.full((n_items, MOST), -1, np.int64)
    for start in range(0, n_items, block):
        common = sparse.coo_array(buys[:, start : start + block].T @ buys)
        i, j = common.row + start, common.col
        kept = (i != j) & (common.data >= least)
        i, j, count = i[kept], j[kept], common.data[kept]
        order = np.lexsort((j, -count / np.sqrt(popularity[j]), i))
        i, j = i[order], j[order]
        place = np.arange(len(i)) - np.searchsorted(i, i)  # within the item's own run
        out[i[place < MOST], place[place < MOST]] = j[place < MOST]
    return out


def draw(found: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Draw one partner for each row of int64 [B, M], each as likely: int64 [B], -1 where there is none."""
    lots = np.array([rng.random() for rng in rngs])
    have = (found >= 0).sum(axis=1)
    return np.where(have > 0, found[np.arange(len(found)), (lots * have).astype(int)], -1)
