"""Another feature set, centred, reduced by PCA and whitened: the processing that makes sets comparable."""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from pipeline.config.base import Name, Positive, Section, Share
from pipeline.errors import UserError
from pipeline.features.gathered import Gathered, Map
from pipeline.features.node import Items, Maker
from pipeline.ops import whitening
from pipeline.ops.whitening import Whitening


class WhitenedParams(Section):
    """Settings of kind `whitened`."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    width: Positive = 128
    """directions kept at most, those of most variance"""
    power: Share = 1.0
    """power of the standard deviation that each direction is divided by: 1 whitens, .5 relaxes, 0 is plain PCA"""


class Fitted(Gathered):
    """An affine map of another set's vectors, fitted to all of them; rows of zeros stay zero."""

    @abstractmethod
    def fit(self) -> Whitening: ...

    def fitted(self, items: Items) -> Map:
        own = self.fit()
        return lambda parts: whitening.applied(own, parts[0])

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the other set's vectors, float32 [n, F], a shard at a time."""
        return (x for (x,) in self.parts())


class Whitened(Fitted):
    """A feature set's principal directions, scaled."""

    Params = WhitenedParams
    own: WhitenedParams

    def fit(self) -> Whitening:
        return whitening.fit_pca(self.vectors, self.own.width, self.own.power)

    def rows(self, items: Items) -> Maker:
        """UserError if the given `width` is larger than the other set's."""
        (node,), width = self.of, self.own.width
        if "width" in self.own.model_fields_set and width > (most := node.width(items)):
            raise UserError(f"'encoders.{self.name}.width': {width} is more than the {most} of {node.name}; give less")
        return super().rows(items)
