"""Codes to compare with: drawn at random, whatever the item."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from pipeline.config import Section
from pipeline.semantic_ids.base import MethodParams, Shape, Tensors, Vectors


class Random:
    """Codes drawn at random, in item order; they stand for no vector."""

    Params: ClassVar[type[Section]] = MethodParams
    control: ClassVar[bool] = True

    def __init__(self, codes: np.ndarray, shape: Shape, width: int) -> None:
        """Take the items' codes, int32 [n, L], and the vectors' width F."""
        self.codes, self.shape, self.width = codes, shape, width

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int) -> Self:
        """Draw codes."""
        codes = np.random.default_rng(seed).integers(shape.codes, size=(vectors.n, shape.levels), dtype=np.int32)
        return cls(codes, shape, vectors.sample.shape[1])

    @classmethod
    def of(cls, tensors: Tensors, shape: Shape) -> Self:
        """Return the codes that were drawn."""
        return cls(tensors["codes"], shape, int(tensors["width"][0]))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the drawn codes, int32 [n, L], and the width."""
        return {"codes": self.codes, "width": np.array([self.width], np.int32)}

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return the drawn codes, int32 [n, L]."""
        return self.codes

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return codes of other items: all zero, as there is nothing to choose them by."""
        return np.zeros((len(x), self.shape.levels), np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return zeros, float32 [b, F]."""
        return np.zeros((len(codes), self.width), np.float32)

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return equal distances, float32 [b, K]."""
        return np.zeros((len(x), self.shape.codes), np.float32)
