"""What every reader gives: how many rows a file has, which items they are, and the vectors of some rows.

Nothing in a file is run, and nothing is reserved that its bytes do not fill. Letters: N rows, F width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError

WIDEST = 1 << 20  # numbers of a vector; a wider one is refused
Rows = Iterable[tuple[int, object]]  # row number, ascending, and its vector: anything that NumPy converts to an array


@dataclass(frozen=True)
class Vectors:
    """An opened file of vectors."""

    path: Path
    count: int  # N
    width: int  # F
    take: Callable[[np.ndarray], np.ndarray]
    """numbers of rows, int64 [n], ascending -> [n, F]; UserError for a row of another width"""
    ids: pa.Table | None = None
    """columns that may identify the rows, N values each, null for none; none of them: a table whose columns have other
    names; None: a format that names no items"""
    of_images: bool = False  # whether they are known to be made from images alone


def vector(path: Path, row: int, value: object, width: int | None) -> np.ndarray:
    """Return one vector as numbers [F]; UserError if it is none, or has another width than those before.

    One of shape [1, F], as many extractors write it, is [F] too.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError):  # lists of several lengths
        array = np.empty(0, object)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or not 0 < len(array) <= WIDEST or array.dtype.kind not in "fiu":
        raise UserError(f"{path}, row {row}: holds {array.dtype} {array.shape}, expected a vector of numbers")
    if width is not None and len(array) != width:
        raise UserError(f"{path}, row {row}: {len(array):,} numbers, the rows before have {width:,}")
    return array


def gathered(path: Path, rows: Rows, numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the rows of these numbers, float32 [n, F], from an iteration over at least them, in order."""
    out = np.zeros((len(numbers), width), np.float32)
    wanted: Iterator[int] = iter(numbers.tolist())
    at, number = 0, next(wanted, None)
    for row, value in rows:
        if number is None:
            break
        if row == number:
            with np.errstate(over="ignore"):  # a double may overflow, which is refused later
                out[at] = vector(path, row, value, width)
            at, number = at + 1, next(wanted, None)
    return out


def empty(path: Path) -> UserError:
    return UserError(f"{path}: holds no vectors")
