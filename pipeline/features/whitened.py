"""Another feature set after the processing that makes sets comparable: centred, PCA to one width, whitened."""

from __future__ import annotations

from typing import cast

from pipeline.config import Section
from pipeline.config.base import Name, Positive, Share
from pipeline.errors import UserError
from pipeline.features.fitted import Fitted
from pipeline.features.node import Items, Maker
from pipeline.ops import whitening
from pipeline.ops.whitening import Whitening


class WhitenedParams(Section):
    """What kind `whitened` reads."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    width: Positive = 128
    """directions kept at most, those of most variance"""
    power: Share = 1
    """of the standard deviation that each direction is divided by: 1 whitens, .5 relaxes, 0 leaves PCA as it is"""


class Whitened(Fitted):
    """A feature set's principal directions, scaled."""

    Params = WhitenedParams

    def fitted(self) -> Whitening:
        """Return centring, PCA and scaling."""
        own = cast(WhitenedParams, self.own)
        return whitening.fit_pca(self.vectors, own.width, own.power)

    def maker(self, items: Items) -> Maker:
        """Do as any fitted set.

        Raises:
            UserError: `width` is given, and larger than the other set's.
        """
        (node,), width = self.of, cast(WhitenedParams, self.own).width
        if "width" in self.own.model_fields_set and width > (most := node.width(items)):
            raise UserError(f"'encoders.{self.name}.width': {width} is more than the {most} of {node.name}; give less")
        return super().maker(items)
