"""Feature sets as if no item had images, or texts: what an encoder gives for items that lack them.

Letters: n items, F width.
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.encode.origin import Modality
from pipeline.errors import UserError
from pipeline.features.node import Items, Maker, Node, changed

Blank = Callable[[np.ndarray], np.ndarray]  # float32 [n, F] -> the same without a modality


class Separable(Node):
    """A set that can be made without a modality."""

    @abstractmethod
    def hidden(self, modality: str, items: Items) -> Maker:
        """Return a factory of rows that are made without the modality."""

    def apart(self, modality: str, items: Items) -> Blank | None:
        """Return what removes the modality from finished vectors; None if its columns are not separate."""
        return None


def without(node: Node, modality: str, items: Items) -> Maker:
    """Return a factory of rows without one modality, by blanking columns where possible; or UserError."""
    if modality not in node.reads:
        return node.read(items)
    if isinstance(node, Separable) and not node.listed:
        return node.hidden(modality, items)
    if zeroed := blank(node, modality, items):
        return blank_rows(node.read(items), zeroed, modality)
    if isinstance(node, Separable):
        return node.hidden(modality, items)
    raise UserError(f"'encoders.{node.name}': no {modality} can be removed from a set of kind {node.kind}")


def blank(node: Node, modality: str, items: Items) -> Blank | None:
    """Return what removes a modality from finished vectors; None if its columns are not separate."""
    if modality not in node.reads:
        return lambda vectors: vectors
    if node.reads == (modality,):
        return np.zeros_like
    return node.apart(modality, items) if isinstance(node, Separable) else None


def blank_rows(maker: Maker, zeroed: Blank, modality: str) -> Maker:
    def make(start: int, stop: int) -> pa.Table:
        rows = maker(start, stop)
        rows = changed(rows, f"has_{modality}", pa.array(np.zeros(len(rows), bool)))
        return changed(rows, "vector", io.vectors(zeroed(io.matrix(rows["vector"]))))

    return make


class MaskedParams(Section):
    """Settings of kind `masked`."""

    of: Name
    """a feature set that `encode.encoders` names"""
    modality: Modality
    """masked modality of every item"""


class Masked(Node):
    """A feature set as if no item had a modality."""

    Params = MaskedParams
    own: MaskedParams
    stored = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The other modality."""
        return tuple(modality for modality in super().reads if modality != self.own.modality)

    def rows(self, items: Items) -> Maker:
        """UserError unless the set reads image and text."""
        (node,) = self.of
        if set(node.reads) != {"image", "text"}:
            why = f"reads only {node.reads[0]}s" if node.reads else "is imported"
            raise UserError(f"'encoders.{self.name}': {node.name} {why}, so nothing can be masked; leave it out")
        return without(node, self.own.modality, items)

    def inputs(self) -> list[Path]:
        return list(dict.fromkeys([*super().inputs(), *self.of[0].inputs()]))
