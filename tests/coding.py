"""Vectors to code, and methods that coded them, for tests of semantic IDs."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.ops.rows import unit_rows
from pipeline.semantic_ids.base import Method, Shape, Vectors
from pipeline.semantic_ids.registry import METHODS

SHAPE = Shape(levels=3, codes=8)
QUICK: dict[str, dict[str, Any]] = {"rqvae": {"hidden": [16], "width": 4, "batch_size": 32, "epochs": 20}}


def groups(n: int = 400, width: int = 10, kinds: int = 12, seed: int = 0) -> np.ndarray:
    """Return vectors of length 1 around as many directions as there are kinds, float32 [n, F]."""
    rng = np.random.default_rng(seed)
    kind = rng.normal(size=(kinds, width))[rng.integers(kinds, size=n)]
    return unit_rows(kind + 0.4 * rng.normal(size=(n, width)))[0]


def paths(n: int) -> list[list[str]]:
    """Return categories: two sections with three each, and every seventh item without."""
    return [[] if i % 7 == 0 else [f"s{i % 2}", f"s{i % 2} c{i % 3}"] for i in range(n)]


def given(x: np.ndarray, rows: int = 64, sample: int | None = None) -> Vectors:
    return Vectors(lambda: (x[at : at + rows] for at in range(0, len(x), rows)), len(x), x[:sample], paths(len(x)))


def fitted(name: str, x: np.ndarray, shape: Shape = SHAPE, seed: int = 3, **settings: Any) -> Method:
    kind = METHODS[name]
    return kind.fit(given(x), shape, kind.Params(**(QUICK.get(name, {}) | settings)), seed)


def error(method: Method, x: np.ndarray, codes: np.ndarray) -> float:
    return float(((x - method.decode(codes)) ** 2).sum(axis=1).mean())
