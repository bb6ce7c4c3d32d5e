"""What every encoder is, and what it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pipeline.config import Encode
from pipeline.layout import Layout


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int
    """F"""
    flops: float
    """multiplications and additions of all that was encoded so far; stays 0 where nobody counts them"""

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text, int64 [B]: texts of equal length make a batch without padding."""
        ...

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        """Decode pictures and split texts of B items that all have an image, or a text, or both.

        Called from several threads at a time, while `encode` is at work on other items.
        """
        ...

    def encode(self, prepared: Any) -> Tensor:
        """Return float32 [B, F] of what `prepare` made, finite, not normalised; a GPU may still be at work on it."""
        ...


@dataclass(frozen=True)
class Context:
    """What encoders are made from besides their own weights."""

    layout: Layout
    params: Encode
