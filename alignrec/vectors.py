"""NumPy arrays with an identifier per row. N rows, I items, F width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import nearest

SINGLE = "vectors"  # name of a feature set that is passed without one
SHOWN = 5  # identifiers listed in a message if none is similar


class Vectors(np.ndarray[Any, np.dtype[np.float32]]):
    """A NumPy array, float32 [N, F], with an identifier per row.

    Arrays derived from it, including slices, have no `ids`.
    """

    ids: np.ndarray
    """[N], identifier of each row, dtype object"""

    def __new__(cls, array: np.ndarray, ids: Iterable[Any]) -> Vectors:
        """Attach an identifier to each row of vectors [N, F], which are not copied if they are contiguous float32."""
        vectors = np.ascontiguousarray(array, np.float32).view(cls)
        vectors.ids = np.fromiter(ids, object)
        if vectors.ndim != 2 or len(vectors.ids) != len(vectors):
            raise UserError(
                f"vectors of shape {vectors.shape} with {len(vectors.ids)} ids; give one id a row [N, F]"
            )
        return vectors

    @cached_property
    def rows(self) -> dict[Any, int]:
        """Row of each identifier."""
        return {name: row for row, name in enumerate(self.ids.tolist())}

    def of(self, name: Any) -> np.ndarray:
        """Return the vector of one identifier, float32 [F]; UserError if it is unknown."""
        if name not in self.rows:
            raise UserError(f"no id {name!r} among the vectors{suggest_name(str(name), self.rows)}")
        return np.asarray(self[self.rows[name]])


def suggest_name(name: str, names: Iterable[Any]) -> str:
    """Return a hint for an error message: a name similar to `name`, or the first few of `names`."""
    every = [*map(str, names)]
    first, alike = (
        every[:SHOWN],
        [n for n in every if n.startswith(name[:2]) or n.endswith(name[-2:])],
    )
    hint = nearest(name, alike) if alike else ""
    return (
        hint
        if "did you mean" in hint
        else f"; there are {', '.join(first)}, ..."
        if first
        else "; there are none"
    )


def align_sets(
    vectors: np.ndarray | Mapping[str, np.ndarray], ids: Iterable[Any] | None
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return feature sets [I, F] by name, in one order of items, and the item of each row.

    Without `ids` the order is that of the first set with `ids`, or 0 .. I-1. UserError if a set lacks an item or has
    values that are not finite.
    """
    given = dict(vectors) if isinstance(vectors, Mapping) else {SINGLE: vectors}
    if not given:
        raise UserError("vectors: none were given; give an array [I, F], or name -> array")
    sets = {name: check_matrix(x, name) for name, x in given.items()}
    # sets that know their items are joined by identifier, others by position
    named = {
        n: x
        for n, x in given.items()
        if ids is None and isinstance(x, Vectors) and hasattr(x, "ids")
    }
    rows = range(len(next(iter(sets.values()))))
    items = list(ids if ids is not None else next((x.ids.tolist() for x in named.values()), rows))
    for name, array in sets.items():
        if len(array) != len(items):
            raise UserError(
                f"{name}: {len(array)} vectors for {len(items)} items; give a vector an item"
            )
        if name in named:
            row_of = named[name].rows
            if (absent := next((item for item in items if item not in row_of), None)) is not None:
                raise UserError(
                    f"{name}: no vector of item {absent!r}, which other vectors have; give the same items"
                )
            sets[name] = array[[row_of[item] for item in items]]
    return sets, items


def check_matrix(vectors: Any, name: str = SINGLE) -> np.ndarray:
    """Convert vectors to float32 [I, F]; UserError if they are not a non-empty matrix of finite numbers."""
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        given = f"{array.dtype} {array.shape}"
        raise UserError(
            f"{name}: is {given}; expected numbers [items, width], at least one of each"
        )
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(
            array, np.float32
        )  # before the check, as large doubles overflow to infinity
    wrong = np.flatnonzero(~np.isfinite(single).all(axis=1))
    if wrong.size:
        raise UserError(f"{name}, row {wrong[0]}: not finite in single precision; correct it")
    return single


def require_positive(**given: Sequence[int]) -> None:
    """Raise UserError if an argument is empty or contains a number below 1."""
    for name, numbers in given.items():
        if not numbers or min(numbers) < 1:
            raise UserError(
                f"{name}: {', '.join(map(str, numbers)) or 'none'}; give whole numbers of at least 1"
            )
