"""Another feature set without its images, or without its texts: what its encoder gives for items that lack them.

Where numbers of the image alone stand beside numbers of the text alone, those of the masked modality become zero and
nothing is encoded again.
"""

from pathlib import Path

from pipeline.config.base import Name, Section
from pipeline.encode.origin import Modality
from pipeline.errors import UserError
from pipeline.features.node import Items, Maker, Node


class MaskedParams(Section):
    """What kind `masked` reads."""

    of: Name
    """a feature set that `encode.encoders` names"""
    modality: Modality
    """what is masked of every item"""


class Masked(Node):
    """A feature set as if no item had a modality."""

    Params = MaskedParams
    own: MaskedParams
    stored = True

    @property
    def reads(self) -> tuple[str, ...]:
        """What is left."""
        return tuple(modality for modality in super().reads if modality != self.own.modality)

    def maker(self, items: Items) -> Maker:
        """Return what makes the other set's rows without the modality; UserError if it reads that not, or alone."""
        (node,) = self.of
        if set(node.reads) != {"image", "text"}:
            alone = f"reads {node.reads[0]}s alone" if node.reads else "is imported"
            raise UserError(f"'encoders.{self.name}': {node.name} {alone}, nothing of it can be masked; leave it out")
        return node.without(self.own.modality, items)

    def inputs(self) -> list[Path]:
        """Return the other set's files, and those that it is encoded from again."""
        return list(dict.fromkeys([*super().inputs(), *self.of[0].inputs()]))
