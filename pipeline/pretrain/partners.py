"""Item pairs that many users have in common: the positives of pre-training's collaborative term.

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
    """Return the items with the highest co-occurrence with each item, by `cooccurrence.squared_cosines`.

    Args:
        interactions: schema INTERACTIONS; only rows of the train split are read.
        n_items: I.
        least: users that a pair must have in common.

    Returns:
        int64 [I, M], highest score first, of equal scores the lower id; -1 where there are fewer.
    """
    train = interactions["split"].to_numpy() == TRAIN
    user, item = (interactions[c].to_numpy()[train] for c in ("user_id", "item_id"))
    out = np.full((n_items, MOST), -1, np.int64)
    for first, score in cooccurrence.squared_cosines(cooccurrence.user_item_matrix(user, item, n_items), least):
        top = cooccurrence.top_k(score, MOST)
        out[first : first + top.shape[0]] = cooccurrence.descending(top, MOST)
    return out


def draw(candidates: np.ndarray, rngs: Sequence[Generator]) -> np.ndarray:
    """Draw one partner for each row of int64 [B, M], each as likely: int64 [B], -1 where there is none."""
    draws = np.array([rng.random() for rng in rngs])
    counts = (candidates >= 0).sum(axis=1)
    return np.where(counts > 0, candidates[np.arange(len(candidates)), (draws * counts).astype(int)], -1)
