"""What every encoder is, and what it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.config import Encode
from pipeline.layout import Layout


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int
    """F"""

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text, int64 [B]: texts of equal length make a batch without padding."""
        ...

    def encode(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        """Return float32 [B, F], finite, for B items that all have an image, or a text, or both; not normalised."""
        ...


@dataclass(frozen=True)
class Context:
    """What encoders are made from besides their own weights."""

    layout: Layout
    params: Encode


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows of length 1, [B, F]; a row of zeros stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)
