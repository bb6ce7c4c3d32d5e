"""What every encoder is, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from pipeline.config import Encode, Section
from pipeline.encode.origin import Origin
from pipeline.layout import Layout

Params = TypeVar("Params", bound=Section)


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
    """What encoders are made from besides their own weights and settings."""

    layout: Layout
    params: Encode
    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """section `encoders`: what a name stands for"""
    name: str = ""
    """of the encoder that is made"""
    origin: Origin | None = None
    """where its network comes from, if its kind loads somebody's"""
    parts: tuple[Context, ...] = ()
    """of a concat, what each part is made from"""


@dataclass(frozen=True)
class Spec(Generic[Params]):
    """An encoder as the registry has it."""

    make: Callable[[Context, Params], Encoder]
    """loads the network"""
    params: type[Params]
    """the closed class of its settings, `encoders.<name>`"""
    reads: tuple[str, ...] = ("image", "text")
    """modalities that it is shown; the other is hidden from it"""
    pretrained: bool = False
    """whether it loads what the stage `pretrain` wrote"""
    variant_of: str = ""
    """the encoder whose settings it takes: the two must differ in one thing alone"""
    origin: Callable[[str, Params], Origin] | None = None
    """finds and checks the files of somebody's network, given the settings' path; loads nothing"""
    library: str = ""
    """the package that loads them"""


class Nothing(Section):
    """Settings of an encoder that has none."""
