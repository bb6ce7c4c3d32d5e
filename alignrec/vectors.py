"""Vectors as NumPy arrays whose rows have identifiers. Letters: N rows, F width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from alignrec.pipeline.config.base import nearest
from alignrec.pipeline.errors import UserError

SINGLE = "vectors"
"""name of a feature set that was given without one"""
SHOWN = 5
"""identifiers that a message names where none is similar"""


class Vectors(np.ndarray[Any, np.dtype[np.float32]]):
    """A NumPy array, float32 [N, F], whose rows have `ids`; what is computed from it, slices included, has none."""

    ids: np.ndarray
    """str [N], dtype object: identifier of each row"""

    def __new__(cls, array: np.ndarray, ids: Iterable[Any]) -> Vectors:
        """Give each row of `array` an identifier, without a copy if it is float32; UserError for another number."""
        vectors = np.ascontiguousarray(array, np.float32).view(cls)
        vectors.ids = np.fromiter(ids, object)
        if vectors.ndim != 2 or len(vectors.ids) != len(vectors):
            raise UserError(f"vectors of shape {vectors.shape} with {len(vectors.ids)} ids; give one id a row [N, F]")
        return vectors

    @cached_property
    def rows(self) -> dict[Any, int]:
        """Identifier -> row."""
        return {name: row for row, name in enumerate(self.ids.tolist())}

    def of(self, name: Any) -> np.ndarray:
        """Return the vector of one identifier, float32 [F]; UserError suggests a similar one."""
        if name not in self.rows:
            raise UserError(f"no id {name!r} among the vectors{similar(str(name), self.rows)}")
        return np.asarray(self[self.rows[name]])


def similar(name: str, names: Iterable[Any]) -> str:
    """Return the hint of an error on `name`: the most similar of `names` that begin or end alike, or the first few."""
    every = [*map(str, names)]
    first, alike = every[:SHOWN], [n for n in every if n.startswith(name[:2]) or n.endswith(name[-2:])]
    hint = nearest(name, alike) if alike else ""
    return hint if "did you mean" in hint else f"; there are {', '.join(first)}, ..." if first else "; there are none"


def aligned(
    vectors: np.ndarray | Mapping[str, np.ndarray], ids: Iterable[Any] | None
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return name -> float32 [I, F] of one or several feature sets, and the item of each row.

    Without `ids`, sets take the order of the first that has `ids`; where none has, items are 0 .. I-1. UserError unless
    each item has one finite vector in each set.
    """
    given = dict(vectors) if isinstance(vectors, Mapping) else {SINGLE: vectors}
    if not given:
        raise UserError("vectors: none were given; give an array [I, F], or name -> array")
    sets = {name: checked(x, name) for name, x in given.items()}
    # sets that know their items are joined by identifier, others by position
    named = {n: x for n, x in given.items() if ids is None and isinstance(x, Vectors) and hasattr(x, "ids")}
    if ids is not None:
        items = list(ids)
    else:
        items = next((x.ids.tolist() for x in named.values()), list(range(len(next(iter(sets.values()))))))
    for name, array in sets.items():
        if len(array) != len(items):
            raise UserError(f"{name}: {len(array)} vectors for {len(items)} items; give a vector an item")
        if name in named:
            rows = named[name].rows
            if (absent := next((item for item in items if item not in rows), None)) is not None:
                raise UserError(f"{name}: no vector of item {absent!r}, which other vectors have; give the same items")
            sets[name] = array[[rows[item] for item in items]]
    return sets, items


def checked(vectors: Any, name: str = SINGLE) -> np.ndarray:
    """Return vectors as float32 [I, F]; UserError if they are no finite numbers of that shape."""
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise UserError(
            f"{name}: is {array.dtype} {array.shape}; expected numbers [items, width], at least one of each"
        )
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, np.float32)  # before the check: a double may be too large for it
    wrong = np.flatnonzero(~np.isfinite(single).all(axis=1))
    if wrong.size:
        raise UserError(f"{name}, row {wrong[0]}: not finite in single precision; correct it")
    return single


def at_least_one(**given: Sequence[int]) -> None:
    """Raise UserError, which names the argument, for numbers below 1 or none at all."""
    for name, numbers in given.items():
        if not numbers or min(numbers) < 1:
            raise UserError(f"{name}: {', '.join(map(str, numbers)) or 'none'}; give whole numbers of at least 1")
