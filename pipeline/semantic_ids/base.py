"""The interface of a method that codes vectors: it learns codebooks, and maps vectors to codes and back.

Vectors have length 1 when a method sees them; those without a direction are left out.
n vectors, F width, L levels, K codes a level.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.config.base import Section
from pipeline.errors import UserError
from pipeline.ops.arrays import Tensors
from pipeline.progress import bar

Progress = Callable[..., Any]
"""total, unit and what, as Run.progress takes them -> a bar"""


def silent(**options: Any) -> Any:
    return bar("", hidden=True, total=options.get("total"))


@dataclass(frozen=True)
class Vectors:
    """The vectors to code, from shards on disk."""

    blocks: Callable[[], Iterable[np.ndarray]]
    """returns all, float32 [b, F] of length 1 at a time, in item order; may be called again"""
    n: int
    sample: np.ndarray
    """float32 [m, F], to learn codebooks on"""
    paths: Sequence[Sequence[str]] = ()
    """category of each item from the root; empty: not known"""


@dataclass(frozen=True)
class Shape:
    """L levels of K codes."""

    levels: int
    codes: int


def enough(vectors: Vectors, shape: Shape) -> None:
    if vectors.n < shape.codes:
        raise UserError(
            f"'semantic_ids.codes': {shape.codes:,} is more than the {vectors.n:,} items with content; give fewer"
        )
    if len(vectors.sample) < shape.codes:
        raise UserError(
            f"'semantic_ids.fit_rows': {len(vectors.sample):,} items are fewer than the {shape.codes:,} codes of a "
            "level; give more"
        )


def same_width(x: np.ndarray, width: int) -> None:
    if x.ndim != 2 or x.shape[1] != width:
        raise UserError(
            f"vectors are {list(x.shape)}, and the codebooks are for width {width}; give the feature set that they "
            "were made for"
        )


class Method(ABC):
    """Learned codebooks. Equal inputs and seeds give equal bytes, at any number of threads."""

    Params: ClassVar[type[Section]]
    control: ClassVar[bool] = False
    """whether its codes ignore the vectors, as a baseline"""
    history: Sequence[dict[str, Any]] = ()
    """a line per epoch of a method that was just trained"""

    @classmethod
    @abstractmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        """Learn L levels of K codes on the sample; `params` is of Params. UserError says what to change."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the method with untrusted codebooks of `tensors`; UserError if one is missing or has another shape."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Return all that `from_tensors` needs."""

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return the codes of all vectors that the codebooks are for, int32 [n, L]."""
        from pipeline.semantic_ids import kmeans  # loads FAISS

        return np.concatenate(list(kmeans.by_block(self.encode, vectors.blocks())))

    @abstractmethod
    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the codes of other vectors: float32 [b, F] -> int32 [b, L]; UserError for another width."""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the vectors of codes: int32 [b, L] -> float32 [b, F]."""

    @abstractmethod
    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return how far each last code is from x, float32 [b, F], given the others: float32 [b, K]."""
