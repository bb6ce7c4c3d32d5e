"""Baselines: codes drawn at random, codes of other items by another method, and categories.

n vectors, F width, L levels, K codes a level.
"""

import hashlib
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field

from pipeline.config.base import Name, Section, checked, nearest
from pipeline.errors import UserError, one_line
from pipeline.ops.arrays import Tensors, tensor
from pipeline.semantic_ids.base import Method, Progress, Shape, Vectors, same_width, silent
from pipeline.semantic_ids.params import FIRST
from pipeline.semantic_ids.registry import METHODS

WIDEST = 2**20


class RandomParams(Section):
    """No settings."""


class Random(Method):
    """Codes drawn from a seed: of the items by their order, of others by their vector. They decode to zeros."""

    Params: ClassVar[type[Section]] = RandomParams
    control = True

    def __init__(self, seed: int, shape: Shape, width: int) -> None:
        self.seed, self.shape, self.width = seed, shape, width

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        return cls(seed, shape, vectors.sample.shape[1])

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        return cls(_number(tensors, "seed", 0, 2**63 - 1), shape, _number(tensors, "width", 1, WIDEST))

    def tensors(self) -> dict[str, np.ndarray]:
        return {"seed": np.array([self.seed], np.int64), "width": np.array([self.width], np.int64)}

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return codes in item order, int32 [n, L]: more items change none of them."""
        return _draw(self.seed, vectors.n, self.shape)

    def encode(self, x: np.ndarray) -> np.ndarray:
        same_width(x, self.width)
        key = self.seed.to_bytes(8, "big")
        seeds = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest(), "big") for row in x]
        drawn = (_draw(own, 1, self.shape) for own in seeds)
        return np.concatenate([np.empty((0, self.shape.levels), np.int32), *drawn])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.zeros((len(codes), self.width), np.float32)

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), self.shape.codes), np.float32)


class Categories(Random):
    """An item's category in place of its features: its path gives all codes but the last, what it lacks is drawn."""

    def assign(self, vectors: Vectors) -> np.ndarray:
        """Return codes, int32 [n, L]: code l is the place of the path's l-th name among its siblings, modulo K."""
        if not any(vectors.paths):
            raise UserError("method categories: no item has a category; leave it out of 'semantic_ids.methods'")
        codes, parent = super().assign(vectors), np.zeros(vectors.n, np.int64)
        for level in range(self.shape.levels - 1):
            names = [path[level] if len(path) > level else "" for path in vectors.paths]
            pairs, inverse = np.unique([f"{p:09}{n}" for p, n in zip(parent, names, strict=True)], return_inverse=True)
            parents = np.array([int(pair[:9]) for pair in pairs])
            place = np.arange(len(pairs)) - np.searchsorted(parents, parents)
            known = np.array(names) != ""
            codes[known, level] = place[inverse[known]] % self.shape.codes
            parent = inverse.reshape(-1)
        return codes


def _method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"no '{name}'{nearest(name, METHODS)}")
    if METHODS[name].control:
        raise ValueError(f"'{name}' is a control itself; name a method that looks at the vectors")
    return name


class ShuffledParams(Section):
    """Settings of shuffled codes."""

    method: Annotated[Name, AfterValidator(_method)] = FIRST
    """whose codes are given to other items"""
    settings: dict[str, Any] = Field(default_factory=dict)
    """of that method"""


class Shuffled(Random):
    """Codes of a method, each at another item than it was made from: as many of each as the method has."""

    Params = ShuffledParams

    def __init__(self, name: str, method: Method, seed: int, shape: Shape) -> None:
        super().__init__(seed, shape, method.decode(np.zeros((1, shape.levels), np.int32)).shape[1])
        self.name, self.method, self.history = name, method, method.history

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        assert isinstance(params, ShuffledParams)
        kind = METHODS[params.method]
        own = checked(kind.Params, params.settings, "semantic_ids.settings.shuffled.settings")
        return cls(params.method, kind.fit(vectors, shape, own, seed, progress), seed, shape)

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        name = next((name.partition("/")[0] for name in tensors if "/" in name), "")
        if name not in METHODS or METHODS[name].control:
            raise UserError(f"tensors of no method that can be shuffled: '{one_line(name, 64)}'")
        own = {key.partition("/")[2]: x for key, x in tensors.items() if key.startswith(f"{name}/")}
        return cls(name, METHODS[name].from_tensors(own, shape), _number(tensors, "seed", 0, 2**63 - 1), shape)

    def tensors(self) -> dict[str, np.ndarray]:
        own = {f"{self.name}/{key}": x for key, x in self.method.tensors().items()}
        return own | {"seed": np.array([self.seed], np.int64)}

    def assign(self, vectors: Vectors) -> np.ndarray:
        return self.method.assign(vectors)[np.random.default_rng(self.seed).permutation(vectors.n)]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self.method.decode(codes)


def _draw(seed: int, n: int, shape: Shape) -> np.ndarray:
    """Return codes drawn in order, int32 [n, L]; those of fewer are the first of these."""
    return np.random.default_rng(seed).integers(shape.codes, size=(n, shape.levels), dtype=np.int32)


def _number(tensors: Tensors, name: str, low: int, high: int) -> int:
    value = int(tensor(tensors, name, 1, dtype=np.int64)[0])
    if not low <= value <= high:
        raise UserError(f"tensor '{name}' is {value}, expected {low} .. {high}")
    return value
