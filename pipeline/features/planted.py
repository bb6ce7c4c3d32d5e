"""Upper bound on a generated catalogue: what its shoppers see of each item, from the generator; a control.

A shopper picks an item of a theme (subcategory) or of a look (colour and shape), sometimes of the theme's category or
the look's colour. A vector has an indicator of each. The product of two vectors is the chance that a shopper who picked
one item picks the other, but for popularity, by the shares of sources/shoppers.py.

Letters: n items, F width.
"""

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
from pipeline.features.node import Items, Maker, table
from pipeline.sources.base import PLANTED
from pipeline.sources.shoppers import COARSE, MOTIVES


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
