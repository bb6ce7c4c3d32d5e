"""Third-party feature files: registry of readers, and matching of rows with items. I items, N rows, F width."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime.registry import Registry
from alignrec.pipeline.sources.base import raw_files
from alignrec.pipeline.sources.feature_files import FEATURE, FOLDER, ROWS, format_of
from alignrec.pipeline.vectors import identifiers

WIDEST = 1 << 20  # maximum width of vectors
Rows = Iterable[tuple[int, object]]  # ascending row number, and a vector (array-like)


@dataclass(frozen=True)
class Vectors:
    """An opened feature file: its rows, their identifiers, and access to vectors.

    Readers must not run code from the file, nor reserve memory beyond its size.
    """

    path: Path
    count: int  # number of rows N
    width: int  # width F of the vectors
    take: Callable[[np.ndarray], np.ndarray]  # ascending row numbers, int64 [n] -> vectors [n, F]
    ids: pa.Table | None = (
        None  # possible identifier columns, N values each; None if the format has none
    )
    of_images: bool = False  # whether it is known to encode only images


def check_vector(path: Path, row: int, value: object, width: int | None) -> np.ndarray:
    """Return a vector of shape [F] or [1, F] as an array [F]; raise UserError for another shape, dtype or width."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError):  # such as ragged lists
        array = np.empty(0, object)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or not 0 < len(array) <= WIDEST or array.dtype.kind not in "fiu":
        raise UserError(
            f"{path}, row {row}: holds {array.dtype} {array.shape}, expected a vector of numbers"
        )
    if width is not None and len(array) != width:
        raise UserError(
            f"{path}, row {row}: {len(array):,} numbers, the rows before have {width:,}"
        )
    return array


def gather_rows(path: Path, rows: Rows, numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the vectors of the rows `numbers`, both ascending: float32 [n, F]; UserError for an invalid vector."""
    out, wanted, at = np.zeros((len(numbers), width), np.float32), numbers.tolist(), 0
    for row, value in rows:
        if at == len(wanted):
            break
        if row == wanted[at]:
            with np.errstate(
                over="ignore"
            ):  # an overflowing double becomes inf, which is refused later
                out[at] = check_vector(path, row, value, width)
            at += 1
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
        "json": "alignrec.pipeline.vectors.tables:open_json",
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


@dataclass(frozen=True)
class Matched:
    """An opened feature file, and the row of each item."""

    vectors: Vectors
    place: np.ndarray  # row of each item, int64 [I]; -1 for none
    how: str  # description of how rows were matched, for messages
    identified: bool  # whether the file contains identifiers
    unknown: int = 0  # rows that match no item
    example: str = ""  # identifier of such a row

    @property
    def missing(self) -> int:
        return int((self.place < 0).sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return vectors of items start .. stop-1, float32 [n, F], zeros without a row; UserError if not finite."""
        place, path = self.place[start:stop], self.vectors.path
        there = np.flatnonzero(place >= 0)
        order = there[np.argsort(place[there], kind="stable")]
        out = np.zeros((len(place), self.vectors.width), np.float32)
        with (
            reraise_faults(path),
            np.errstate(over="ignore"),
        ):  # an overflowing double becomes inf, refused below
            out[order] = self.vectors.take(place[order])
        wrong = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if wrong.size:
            raise UserError(
                f"{path}, row {place[wrong[0]]}: not finite in single precision; repair the file"
            )
        return out

    def counted(self, asins: Sequence[str], fate: str = "get zeros") -> str:
        """Describe unmatched rows and items in a sentence; empty if all match."""
        parts = (
            [f"{self.unknown:,} rows are of no item here, such as {self.example}"]
            if self.unknown
            else []
        )
        if missing := self.missing:
            first = asins[int(np.flatnonzero(self.place < 0)[0])]
            parts.append(f"{missing:,} items have no row, such as {first!r}, and {fate}")
        return "; ".join(parts)


def match_file(
    path: Path,
    asins: Sequence[str],
    order: Path | None = None,
    key: str = "--order",
    column: str | None = None,
) -> Matched:
    """Open a feature file and match its rows by identifiers, the mapping file `order`, or position, in this order."""
    vectors = open_vectors(path, column)
    if vectors.ids is not None and (vectors.ids.num_columns or order is None):
        found = identifiers.match_rows(path, vectors.ids, asins)
        return Matched(
            vectors,
            found.rows,
            f"rows matched by {found.column}",
            True,
            found.unknown,
            found.example,
        )
    if order is not None:
        names = identifiers.read_order(order, asins)
        if vectors.count != len(names):
            raise UserError(f"{path}: {vectors.count} rows, {order} names {len(names)}")
        table = pa.table({"asin": pa.array(names, pa.string())})
        found = identifiers.match_rows(order, table, asins)
        return Matched(
            vectors,
            found.rows,
            f"rows in the order of {order.name}",
            False,
            found.unknown,
            found.example,
        )
    if vectors.count != len(asins):
        raise UserError(
            f"{path}: {vectors.count} rows, {len(asins)} items, and no identifiers; map them by {key}"
        )
    how = f"rows assumed to be in order of item_id: it holds no identifiers; {key} gives another order"
    return Matched(vectors, np.arange(len(asins)), how, False)


class File(NamedTuple):
    """A feature file, and its mapping file."""

    path: Path
    order: Path | None = (
        None  # mapping file, for formats without identifiers; None if row i is item i
    )

    @property
    def format(self) -> str:
        return format_of(self.path.name)

    def matched(self, asins: Sequence[str]) -> Matched:
        return match_file(self.path, asins, self.order, ROWS)


def feature_files(sources: Path) -> dict[str, File]:
    raw = raw_files(sources)
    return {
        role.removeprefix(FEATURE): File(raw[role], raw.get(ROWS))
        for role in raw
        if role.startswith(FEATURE)
    }


def check_files(found: Mapping[str, File], asins: Sequence[str]) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    for name, file in found.items():
        matched = file.matched(asins)
        facts[name] = {
            "rows": matched.vectors.count,
            "width": matched.vectors.width,
            "matched": matched.how,
        }
        more = {
            "rows_of_no_item": matched.unknown,
            "items_without_a_row": matched.missing,
            "such_as": matched.example,
        }
        facts[name] |= {key: value for key, value in more.items() if value}
    return facts
