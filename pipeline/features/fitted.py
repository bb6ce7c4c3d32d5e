"""Feature sets that are an affine map of another set's vectors, fitted to all of them. Letters: F and W widths."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline import io
from pipeline.features.node import Items, Maker, Node, changed, shard
from pipeline.ops import whitening
from pipeline.ops.whitening import Whitening


class Fitted(Node):
    """A kind that says how the map is fitted; rows of zeros stay zero."""

    stored = True

    @abstractmethod
    def fitted(self) -> Whitening:
        """Return the map, [F] -> [W]."""

    def maker(self, items: Items) -> Maker:
        """Return what maps the other set's rows; the map is fitted on the first call."""
        return self._mapped(self.of[0].made(items))

    def hidden(self, modality: str, items: Items) -> Maker:
        """Return what maps the other set's rows without the modality, as the whole ones are mapped."""
        return self._mapped(self.of[0].without(modality, items))

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the other set's vectors, float32 [n, F], a shard at a time."""
        return (io.matrix(shard(path)["vector"]) for path in self.of[0].shards)

    @cached_property
    def _map(self) -> Whitening:
        return self.fitted()

    def _mapped(self, maker: Maker) -> Maker:
        def make(start: int, stop: int) -> pa.Table:
            rows = maker(start, stop)
            return changed(rows, "vector", io.vectors(whitening.applied(self._map, io.matrix(rows["vector"]))))

        return make
