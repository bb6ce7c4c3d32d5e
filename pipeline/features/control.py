"""Feature sets that a useful one must beat: random, shuffled, constant.

Letters: I items, F width.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.features.node import Items, Maker, Node, changed, table
from pipeline.seeds import seed_for

WIDTH = 64
"""of the controls where there is no other feature set"""


class Control(Node):
    """A control of the node that it is made of, if there is one: as wide, and `shuffled` permutes its rows."""

    def maker(self, items: Items) -> Maker:
        """Return what cuts a shard out of rows that are drawn at once."""
        rows = self._drawn
        return lambda start, stop: rows.slice(start, stop - start)

    @cached_property
    def _drawn(self) -> pa.Table:
        ids = io.read_table(self.layout.item_ids, schemas.ITEM_IDS)
        seed = seed_for("encode", self.layout.dataset, self.name, self.params.seed)
        original = io.read_features(self.of[0].folder) if self.of else None
        if self.name == "shuffled" and original is not None:
            rows = original.take(shuffled(len(ids), seed))
            return changed(changed(rows, "item_id", ids["item_id"]), "asin", ids["asin"])
        shape = len(ids), WIDTH if original is None else original["vector"].type.list_size
        vectors = constant(*shape) if self.name == "constant" else random(*shape, seed)
        return table(ids, vectors, *np.zeros((2, len(ids)), bool))


def random(items: int, width: int, seed: int) -> np.ndarray:
    """Return independent N(0, 1), float32 [I, F]."""
    return np.random.default_rng(seed).standard_normal((items, width), dtype=np.float32)


def shuffled(items: int, seed: int) -> np.ndarray:
    """Return the item whose vector each item takes, int64 [I]: one random cycle, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(items)
    source = np.empty(items, np.int64)
    source[order] = np.roll(order, 1)
    return source


def constant(items: int, width: int) -> np.ndarray:
    """Return ones, float32 [I, F]."""
    return np.ones((items, width), np.float32)
