"""The interface of readers: the number of rows of a file, their items, and the vectors of some rows.

No code in a file is run, and no memory is reserved beyond its size. Letters: N rows, F width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec.pipeline.errors import UserError

WIDEST = 1 << 20  # numbers of a vector; a wider one is refused
Rows = Iterable[tuple[int, object]]  # row number, ascending, and its vector: anything that NumPy converts to an array


@dataclass(frozen=True)
class Vectors:
    """An opened file of vectors."""

    path: Path
    count: int  # N
    width: int  # F
    take: Callable[[np.ndarray], np.ndarray]  # ascending numbers of rows, int64 [n] -> [n, F]
    ids: pa.Table | None = None  # columns that may identify the rows, N values each; None: the format names no items
    of_images: bool = False  # whether they are known to be made only from images


def check_vector(path: Path, row: int, value: object, width: int | None) -> np.ndarray:
    """Return a vector of shape [F] or [1, F] as numbers [F]; UserError for another shape, type or width."""
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


def gather_rows(path: Path, rows: Rows, numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the rows of these numbers, float32 [n, F], from ascending rows that contain them."""
    out = np.zeros((len(numbers), width), np.float32)
    wanted: Iterator[int] = iter(numbers.tolist())
    at, number = 0, next(wanted, None)
    for row, value in rows:
        if number is None:
            break
        if row == number:
            with np.errstate(over="ignore"):  # a double may overflow, which is refused later
                out[at] = check_vector(path, row, value, width)
            at, number = at + 1, next(wanted, None)
    return out


def no_vectors(path: Path) -> UserError:
    return UserError(f"{path}: holds no vectors")
