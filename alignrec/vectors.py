"""NumPy arrays with an identifier per row. N rows, I items, F width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import nearest

SINGLE = "vectors"  # name of a feature set that is passed without one
MAX_LISTED = 5  # identifiers in a message if none is similar


class Vectors(np.ndarray[Any, np.dtype[np.float32]]):
    """A NumPy array, float32 [N, F], with an identifier per row.

    Arrays derived from it, including slices, have no `ids`.
    """

    ids: np.ndarray
    """[N], identifier of each row, dtype object"""

    def __new__(cls, array: np.ndarray, ids: Iterable[Any]) -> Vectors:
        """Attach an identifier to each row of vectors [N, F], which are not copied if they are
        contiguous float32.
        """
        vectors = np.ascontiguousarray(array, np.float32).view(cls)
        vectors.ids = np.fromiter(ids, object)
        if vectors.ndim != 2 or len(vectors.ids) != len(vectors):
            raise UserError(
                f"vectors of shape {vectors.shape} with {len(vectors.ids)} ids; give one id a row "
                "[N, F]"
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
    candidates = [str(candidate) for candidate in names]
    start, end = name[:2], name[-2:]
    alike = [c for c in candidates if c.startswith(start) or c.endswith(end)]
    hint = nearest(name, alike) if alike else ""
    if "did you mean" in hint:
        return hint
    if not candidates:
        return "; there are none"
    return f"; there are {', '.join(candidates[:MAX_LISTED])}, ..."


def align_sets(
    vectors: np.ndarray | Mapping[str, np.ndarray], ids: Iterable[Any] | None
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return feature sets [I, F] by name, in one order of items, and the item of each row.

    Without `ids` the order is that of the first set with `ids`, or 0 .. I-1. UserError if a set
    lacks an item or has values that are not finite.
    """
    arrays = dict(vectors) if isinstance(vectors, Mapping) else {SINGLE: vectors}
    if not arrays:
        raise UserError("vectors: none were given; give an array [I, F], or name -> array")
    sets = {name: check_matrix(array, name) for name, array in arrays.items()}

    # sets that know their items are joined by identifier, others by position
    labelled = {} if ids is not None else _select_labelled(arrays)
    items = _order_items(ids, labelled, rows=len(next(iter(sets.values()))))
    for name, array in sets.items():
        if len(array) != len(items):
            raise UserError(
                f"{name}: {len(array)} vectors for {len(items)} items; give a vector an item"
            )
        if name in labelled:
            sets[name] = array[_find_rows(labelled[name], items, name)]

    return sets, items


def _select_labelled(arrays: Mapping[str, np.ndarray]) -> dict[str, Vectors]:
    # arrays derived from Vectors have no ids
    vectors = {name: array for name, array in arrays.items() if isinstance(array, Vectors)}
    return {name: array for name, array in vectors.items() if hasattr(array, "ids")}


def _order_items(
    ids: Iterable[Any] | None, labelled: Mapping[str, Vectors], rows: int
) -> list[Any]:
    if ids is not None:
        return list(ids)
    for array in labelled.values():
        items: list[Any] = array.ids.tolist()
        return items

    return list(range(rows))


def _find_rows(vectors: Vectors, items: list[Any], name: str) -> list[int]:
    rows = []
    for item in items:
        if item not in vectors.rows:
            raise UserError(
                f"{name}: no vector of item {item!r}, which other vectors have; give the same items"
            )
        rows.append(vectors.rows[item])

    return rows


def check_matrix(vectors: Any, name: str = SINGLE) -> np.ndarray:
    """Convert vectors to float32 [I, F]; UserError if they are not a non-empty matrix of finite
    numbers.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise UserError(
            f"{name}: is {array.dtype} {array.shape}; "
            "expected numbers [items, width], at least one of each"
        )

    # before the check, as large doubles overflow to infinity
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, np.float32)
    wrong = np.flatnonzero(~np.isfinite(single).all(axis=1))
    if wrong.size:
        raise UserError(f"{name}, row {wrong[0]}: not finite in single precision; correct it")

    return single


def require_positive(**arguments: Sequence[int]) -> None:
    """Raise UserError if an argument is empty or contains a number below 1."""
    for name, numbers in arguments.items():
        if not numbers or min(numbers) < 1:
            listed = ", ".join(map(str, numbers)) or "none"
            raise UserError(f"{name}: {listed}; give whole numbers of at least 1")
