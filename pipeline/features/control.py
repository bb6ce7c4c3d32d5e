"""Feature sets that others are compared with: random, shuffled, constant, and an upper bound, planted.

A shopper of a generated catalogue picks an item of a theme (subcategory) or of a look (colour and shape), sometimes of
the theme's category or the look's colour. A planted vector has an indicator of each. The product of two vectors is the
chance that a shopper who picked one item picks the other, but for popularity, by the shares of sources/shoppers.py.

Letters: I items, n of them, F width.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.encode.base import NoSettings
from pipeline.encode.params import MODALITIES
from pipeline.errors import UserError
from pipeline.features.masked import Blank, Separable, blank_rows
from pipeline.features.node import Items, Maker, Node, changed, table
from pipeline.seeds import seed_for
from pipeline.sources.base import PLANTED
from pipeline.sources.shoppers import COARSE, MOTIVES

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
            vectors = np.ones(shape, np.float32) if self.name == "constant" else random(*shape, [seed, number])
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


class Planted(Separable):
    """Indicators of what a text says, then of what an image shows, both known exactly."""

    Params = NoSettings

    @property
    def reads(self) -> tuple[str, ...]:
        return MODALITIES

    def inputs(self) -> list[Path]:
        return [self.layout.item_ids, self._path]

    def rows(self, items: Items) -> Maker:
        """UserError if the source is not generated."""
        row = {asin: i for i, asin in enumerate(self._table["asin"].to_pylist())}
        place = np.array([row[asin] for asin in items.ids["asin"].to_pylist()], np.int64)

        def make(start: int, stop: int) -> pa.Table:
            here = place[start:stop]
            vectors = np.hstack([half[here] for half in self._halves.values()])
            return table(items.ids.slice(start, stop - start), vectors, *np.ones((2, len(here)), bool))

        return make

    def hidden(self, modality: str, items: Items) -> Maker:
        return blank_rows(self.read(items), self.apart(modality, items), modality)

    def apart(self, modality: str, items: Items) -> Blank:
        known = {name: half.shape[1] for name, half in self._halves.items()}
        kept = np.repeat([name != modality for name in known], list(known.values()))
        return lambda vectors: vectors * kept.astype(np.float32)

    @cached_property
    def _path(self) -> Path:
        path = self.layout.raw / PLANTED
        if not path.is_file():
            raise UserError(f"'encoders.{self.name}': {self.layout.dataset} is not generated; leave it out")
        return path

    @cached_property
    def _table(self) -> pa.Table:
        return io.read_table(self._path, schemas.PLANTED)

    @cached_property
    def _halves(self) -> dict[str, np.ndarray]:
        """Modality -> float32 [n, its width], all items of the generator."""
        theme, look, _ = MOTIVES
        text = [_indicators(self._table, "subcategory", theme), _indicators(self._table, "category", COARSE * theme)]
        image = [_indicators(self._table, "look", look), _indicators(self._table, "colour", COARSE * look)]
        return {"text": np.hstack(text), "image": np.hstack(image)}


def _indicators(rows: pa.Table, column: str, weight: float) -> np.ndarray:
    """Return an indicator of each value, float32 [n, values]; its square is the weight over the items with it."""
    number = rows[column].to_numpy()
    size = np.bincount(number)
    return np.eye(len(size), dtype=np.float32)[number] * np.sqrt(weight / size[number]).astype(np.float32)[:, None]
