"""Inputs of training: the split, at most one feature set, and negative samples.

U users, I items, N train pairs.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split
from alignrec.pipeline.dataset.split import Pairs, Split, contains_keys, pair_keys
from alignrec.pipeline.runtime.layout import Layout


class TrainingData(NamedTuple):
    """A split with at most one feature set and its item graph."""

    split: split.Split
    features: np.ndarray | None  # float32 [I, F]
    edges: pa.Table | None  # schema EDGES


def input_files(layout: Layout, features: str | None) -> list[Path]:
    files = [layout.interactions, layout.users, layout.item_ids]
    if features is not None:
        files += [layout.edges(features), *io.shards(layout.features(features), "features")]
    return files


def read_inputs(layout: Layout, features: str | None) -> TrainingData:
    """Read the split and, unless None, a feature set with its graph.

    Of large catalogues the split has a sample of users.
    """
    users = io.read_table(layout.users, schemas.USERS, ["user_id"])
    items = io.read_table(layout.item_ids, schemas.ITEM_IDS, ["item_id"])
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    parts = split.limit_users(split.load_split(interactions, len(users), len(items)))
    if features is None:
        return TrainingData(parts, None, None)

    vectors = io.map_features(layout.features(features))
    edges = io.read_table(layout.edges(features), schemas.EDGES)
    return TrainingData(parts, vectors, edges)


class Sampler:
    """Sampler of train pairs with negatives, vectorised over an epoch."""

    def __init__(self, split: Split) -> None:
        train = split.train
        self.items = np.unique(train.items)
        self.n_items = split.n_items
        self.taken = pair_keys(train, split.n_items)

        # users with every train item have no negatives, so their pairs are dropped
        items_per_user = np.bincount(train.users, minlength=split.n_users)
        has_negatives = items_per_user < len(self.items)
        is_used = has_negatives[train.users]
        self.pairs = Pairs(train.users[is_used], train.items[is_used])

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Return users, positives, negatives, int64 [3, N].

        Negatives are uniform over unseen train items.
        """
        order = self.order(rng)
        users = self.pairs.users[order].astype(np.int64)
        positives = self.pairs.items[order].astype(np.int64)

        negatives = self._draw_items(rng, len(users))
        redrawn = np.arange(len(users))
        while True:
            keys = users[redrawn] * self.n_items + negatives[redrawn]
            redrawn = redrawn[contains_keys(self.taken, keys)]
            if not len(redrawn):
                return np.stack([users, positives, negatives])
            negatives[redrawn] = self._draw_items(rng, len(redrawn))

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self.pairs))

    def _draw_items(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.items[rng.integers(0, len(self.items), n)].astype(np.int64)
