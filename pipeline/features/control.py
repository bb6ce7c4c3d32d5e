"""Feature sets that a useful one must beat: random, shuffled, constant.

Letters: I items, F width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.features.node import Items, Maker, Node, changed, table
from pipeline.seeds import seed_for

WIDTH = 64  # without another feature set
TOGETHER = 8  # shards per permutation of `shuffled`, which bounds memory
Seed = int | Sequence[int]  # s and [s, 0] draw the same


class Control(Node):
    """A control as wide as the first other set, if there is one; `shuffled` permutes its rows."""

    def rows(self, items: Items) -> Maker:
        seed = seed_for("encode", self.layout.dataset, self.name, self.params.seed)
        original = self.of[0] if self.of else None
        if self.name == "shuffled" and original is not None:
            return self._shuffled(original, items, seed)
        size = WIDTH if original is None else original.width(items)

        def make(start: int, stop: int) -> pa.Table:
            shape = stop - start, size
            number = start // self.params.shard_rows
            vectors = constant(*shape) if self.name == "constant" else random(*shape, [seed, number])
            return table(items.ids.slice(start, stop - start), vectors, *np.zeros((2, stop - start), bool))

        return make

    def inputs(self) -> list[Path]:
        return [self.layout.item_ids, *super().inputs()]

    def _shuffled(self, original: Node, items: Items, seed: int) -> Maker:
        read, rows, n = original.read(items), self.params.shard_rows, len(items.ids)
        shards = np.random.default_rng(seed).permutation(-(-n // rows))
        groups = [np.sort(group) for group in np.array_split(shards, -(-len(shards) // TOGETHER))]
        group_of = {shard: number for number, group in enumerate(groups) for shard in group.tolist()}

        def make(start: int, stop: int) -> pa.Table:
            number = group_of[start // rows]
            ends = [(at, min(at + rows, n)) for at in (groups[number] * rows).tolist()]
            all_rows = pa.concat_tables(read(*at) for at in ends)
            first = sum(b - a for a, b in ends if b <= start)
            source = shuffled(len(all_rows), [seed, number])[first : first + stop - start]
            taken, ids = all_rows.take(source), items.ids.slice(start, stop - start)
            return changed(changed(taken, "item_id", ids["item_id"]), "asin", ids["asin"])

        return make


def random(items: int, width: int, seed: Seed) -> np.ndarray:
    """Return independent N(0, 1), float32 [I, F]."""
    return np.random.default_rng(seed).standard_normal((items, width), dtype=np.float32)


def shuffled(items: int, seed: Seed) -> np.ndarray:
    """Return the item whose vector each item gets, int64 [I]: one random cycle, so no item keeps its own."""
    order = np.random.default_rng(seed).permutation(items)
    source = np.empty(items, np.int64)
    source[order] = np.roll(order, 1)
    return source


def constant(items: int, width: int) -> np.ndarray:
    return np.ones((items, width), np.float32)
