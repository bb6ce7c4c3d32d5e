"""The interface of a method that codes vectors: it learns codebooks, and maps vectors to codes and back.

Vectors have length 1 when a method sees them; those without a direction are left out.
n vectors, F width, L levels, K codes a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from pipeline.config import Section

Tensors = Mapping[str, np.ndarray]
"""name -> array, as codebooks.safetensors holds them"""


class MethodParams(Section):
    """A method without settings of its own."""


@dataclass(frozen=True)
class Vectors:
    """The vectors to code, from shards on disk."""

    blocks: Callable[[], Iterable[np.ndarray]]
    """returns all, float32 [n, F] of length 1 at a time, in item order; may be called again"""
    n: int
    """of all"""
    sample: np.ndarray
    """float32 [m, F]: those that codebooks are learned on"""


@dataclass(frozen=True)
class Shape:
    """The shape of the codes."""

    levels: int
    """L"""
    codes: int
    """K"""


class Method(Protocol):
    """Learned codebooks. Equal inputs and seeds give equal bytes, at any number of threads."""

    Params: ClassVar[type[Section]]
    """settings of its own"""
    control: ClassVar[bool]
    """whether its codes are made without looking at the vectors, to compare with"""

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int) -> Self:
        """Learn codebooks.

        Raises:
            UserError: the vectors allow no such codebooks; says what to change.
        """

    @classmethod
    def of(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the method with codebooks as `tensors` gave them.

        Raises:
            UserError: a tensor is missing or has another shape.
        """

    def tensors(self) -> dict[str, np.ndarray]:
        """Return all that `of` needs."""

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return the codes of all vectors that the codebooks are for, int32 [n, L]."""

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the codes of other vectors, each by itself: float32 [b, F] -> int32 [b, L]."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return what codes stand for: int32 [b, L] -> float32 [b, F]."""

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return how far each value of the last code is from a vector, given the codes before: float32 [b, K].

        Args:
            x: float32 [b, F].
            codes: int32 [b, L], of which the last is ignored.
        """
