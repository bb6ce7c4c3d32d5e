"""Another feature set after the processing that makes sets comparable: centred, PCA to one width, whitened."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Name, Positive, Section, Share
from pipeline.errors import UserError
from pipeline.features.node import Items, Maker, Node, changed, shard
from pipeline.ops import whitening
from pipeline.ops.whitening import Whitening


class WhitenedParams(Section):
    """What kind `whitened` reads."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    width: Positive = 128
    """directions kept at most, those of most variance"""
    power: Share = 1.0
    """of the standard deviation that each direction is divided by: 1 whitens, .5 relaxes, 0 leaves PCA as it is"""


class Fitted(Node):
    """An affine map of another set's vectors that is fitted to all of them; rows of zeros stay zero."""

    stored = True

    @abstractmethod
    def fitted(self) -> Whitening:
        """Return the map, of width F to another."""

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


class Whitened(Fitted):
    """A feature set's principal directions, scaled."""

    Params = WhitenedParams
    own: WhitenedParams

    def fitted(self) -> Whitening:
        """Return centring, PCA and scaling."""
        return whitening.fit_pca(self.vectors, self.own.width, self.own.power)

    def maker(self, items: Items) -> Maker:
        """Do as any fitted set; UserError if `width` is given, and larger than the other set's."""
        (node,), width = self.of, self.own.width
        if "width" in self.own.model_fields_set and width > (most := node.width(items)):
            raise UserError(f"'encoders.{self.name}.width': {width} is more than the {most} of {node.name}; give less")
        return super().maker(items)
