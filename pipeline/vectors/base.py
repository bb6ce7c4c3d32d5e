"""Interface of feature file readers, and registry of formats. N rows, F width."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.harness.registry import Registry
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.sources.feature_files import FOLDER, format_of

WIDEST = 1 << 20  # largest width
Rows = Iterable[tuple[int, object]]  # ascending row number, and a vector (array-like)


@dataclass(frozen=True)
class Vectors:
    """An opened feature file: its rows, their identifiers, and access to vectors.

    Readers must not run code from the file, nor reserve memory beyond its size.
    """

    path: Path
    count: int  # N
    width: int  # F
    take: Callable[[np.ndarray], np.ndarray]  # ascending row numbers, int64 [n] -> vectors [n, F]
    ids: pa.Table | None = None  # possible identifier columns, N values each; None if the format has none
    of_images: bool = False  # known to encode images only


def check_vector(path: Path, row: int, value: object, width: int | None) -> np.ndarray:
    """Return a vector of shape [F] or [1, F] as an array [F]; raise UserError for another shape, dtype or width."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError):  # ragged lists
        array = np.empty(0, object)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or not 0 < len(array) <= WIDEST or array.dtype.kind not in "fiu":
        raise UserError(f"{path}, row {row}: holds {array.dtype} {array.shape}, expected a vector of numbers")
    if width is not None and len(array) != width:
        raise UserError(f"{path}, row {row}: {len(array):,} numbers, the rows before have {width:,}")
    return array


def gather_rows(path: Path, rows: Rows, numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the vectors of the rows `numbers`, ascending: float32 [n, F].

    `rows` yields (number, vector) in ascending order and must contain them; raises UserError for an invalid vector.
    """
    out = np.zeros((len(numbers), width), np.float32)
    wanted: Iterator[int] = iter(numbers.tolist())
    at, number = 0, next(wanted, None)
    for row, value in rows:
        if number is None:
            break
        if row == number:
            with np.errstate(over="ignore"):  # an overflowing double becomes inf, which is refused later
                out[at] = check_vector(path, row, value, width)
            at, number = at + 1, next(wanted, None)
    return out


def no_vectors(path: Path) -> UserError:
    return UserError(f"{path}: holds no vectors")


# to add a format, write a reader in this package and register it here
READERS: Registry[Callable[..., Vectors]] = Registry(
    "readers",
    {
        "npy": "alignrec.pipeline.vectors.arrays:open_npy",
        "torch": "alignrec.pipeline.vectors.arrays:open_torch",
        "records": "alignrec.pipeline.vectors.arrays:open_records",
        "parquet": "alignrec.pipeline.vectors.tables:open_parquet",
        "json": "alignrec.pipeline.vectors.json:open_json",
        "delimited": "alignrec.pipeline.vectors.arrays:open_delimited",
        "zip": "alignrec.pipeline.vectors.arrays:open_archive",
        "folder": "alignrec.pipeline.vectors.arrays:open_folder",
    },
)  # format -> reader


def open_vectors(path: Path, column: str | None = None) -> Vectors:
    if not path.is_dir():
        io.require_plain(path)
    with reraise_faults(path):
        if column is not None:
            return READERS["parquet"](path, column)
        known, ending = format_of(path.name), path.suffix[1:].lower()
        is_added = known == FOLDER and ending in READERS.entries.keys() - READERS.built_in.keys()
        return READERS[ending if is_added else known](path)


@contextmanager
def reraise_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable as features: {one_line(e)}") from None
