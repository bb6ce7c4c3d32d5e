"""Third-party feature files: registry of readers, and matching of rows with items.

I items, N rows, F width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.runtime.registry import Registry, fault_of_function
from alignrec.pipeline.runtime.section import MAX_WIDTH
from alignrec.pipeline.vectors.formats import FEATURE, FOLDER_FORMAT, ROWS, format_of, raw_files
from alignrec.pipeline.vectors.identifiers import match_rows
from alignrec.pipeline.vectors.mapping_files import read_order

NumberedVectors = Iterable[tuple[int, object]]  # ascending row number, and a vector (array-like)


@dataclass(frozen=True)
class VectorFile:
    """An opened feature file: its rows, their identifiers, and access to vectors.

    Readers must not run code from the file, nor reserve memory beyond its size.
    """

    path: Path
    count: int  # number of rows N
    width: int  # width F of the vectors
    take: Callable[[np.ndarray], np.ndarray]  # ascending row numbers, int64 [n] -> vectors [n, F]
    # possible identifier columns, N values each; None if the format has none
    ids: pa.Table | None = None
    of_images: bool = False  # whether it is known to encode only images
    left_out: Sequence[str] = ()  # columns of row numbers beside the vectors


# to add a format, write a reader in this package and register it here
READERS: Registry[Callable[..., VectorFile]] = Registry(
    "readers",
    {
        "npy": "alignrec.pipeline.vectors.arrays:open_npy",
        "torch": "alignrec.pipeline.vectors.arrays:open_torch",
        "records": "alignrec.pipeline.vectors.records:open_records",
        "parquet": "alignrec.pipeline.vectors.parquet:open_parquet",
        "json": "alignrec.pipeline.vectors.json_lines:open_json_lines",
        "delimited": "alignrec.pipeline.vectors.delimited:open_delimited",
        "zip": "alignrec.pipeline.vectors.members:open_archive",
        "folder": "alignrec.pipeline.vectors.members:open_folder",
    },
    fault_of_function,
)  # format -> reader


def check_vector(path: Path, row: int, value: object, width: int | None) -> np.ndarray:
    """Return a vector of shape [F] or [1, F] as an array [F].

    Raises UserError for another shape, dtype or width.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError):  # such as ragged lists
        array = np.empty(0, object)

    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or not 0 < len(array) <= MAX_WIDTH or array.dtype.kind not in "fiu":
        raise UserError(
            f"{path}, row {row}: holds {array.dtype} {array.shape}, expected a vector of numbers"
        )
    if width is not None and len(array) != width:
        raise UserError(
            f"{path}, row {row}: {len(array):,} numbers, the rows before have {width:,}"
        )
    return array


def gather_rows(path: Path, rows: NumberedVectors, numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the vectors of the rows `numbers`, both ascending: float32 [n, F].

    Raises UserError for an invalid vector.
    """
    vectors = np.zeros((len(numbers), width), np.float32)
    row_numbers = numbers.tolist()
    filled = 0
    for row, value in rows:
        if filled == len(row_numbers):
            break
        if row == row_numbers[filled]:
            with np.errstate(
                over="ignore"
            ):  # an overflowing double becomes inf, which is refused later
                vectors[filled] = check_vector(path, row, value, width)
            filled += 1
    return vectors


def no_vectors(path: Path) -> UserError:
    return UserError(f"{path}: holds no vectors")


def open_vectors(path: Path, column: str | None = None) -> VectorFile:
    """Open a feature file by the format of its name; `column` picks one of a Parquet table."""
    if not path.is_dir():
        io.require_plain(path)
    with reraise_faults(path):
        if column is not None:
            return READERS["parquet"](path, column)
        return READERS[_find_format(path)](path)


def _find_format(path: Path) -> str:
    file_format = format_of(path.name)
    ending = path.suffix[1:].lower()
    added_formats = READERS.entries.keys() - READERS.built_in.keys()
    return ending if file_format == FOLDER_FORMAT and ending in added_formats else file_format


@contextmanager
def reraise_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable as features: {one_line(e)}") from None


@dataclass(frozen=True)
class MatchedFile:
    """An opened feature file, and the row of each item."""

    vectors: VectorFile
    place: np.ndarray  # row of each item, int64 [I]; -1 for none
    how: str  # description of how rows were matched, for messages
    identified: bool  # whether the file contains identifiers
    unknown: int = 0  # rows that match no item
    example: str = ""  # identifier of such a row

    @property
    def missing(self) -> int:
        return int((self.place < 0).sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return vectors of items start .. stop-1, float32 [n, F], zeros without a row.

        Raises UserError if not finite.
        """
        places = self.place[start:stop]
        path = self.vectors.path
        matched = np.flatnonzero(places >= 0)
        in_file_order = matched[np.argsort(places[matched], kind="stable")]

        vectors = np.zeros((len(places), self.vectors.width), np.float32)
        # an overflowing double becomes inf, refused below
        with reraise_faults(path), np.errstate(over="ignore"):
            vectors[in_file_order] = self.vectors.take(places[in_file_order])

        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if wrong.size:
            row = places[wrong[0]]
            raise UserError(f"{path}, row {row}: not finite in single precision; repair the file")
        return vectors

    def counted(self, asins: Sequence[str], fate: str = "get zeros") -> str:
        """Describe unmatched rows and items, and columns that are no part of vectors; empty if
        there are none.
        """
        parts = []
        if self.vectors.left_out:
            names = ", ".join(repr(name) for name in self.vectors.left_out)
            parts.append(f"column {names} is left out, as it numbers the rows")
        if self.unknown:
            parts.append(f"{self.unknown:,} rows are of no item here, such as {self.example}")
        if self.missing:
            first = asins[int(np.flatnonzero(self.place < 0)[0])]
            parts.append(f"{self.missing:,} items have no row, such as {first!r}, and {fate}")
        return "; ".join(parts)


def match_file(
    path: Path,
    asins: Sequence[str],
    order: Path | None = None,
    key: str = "--order",
    column: str | None = None,
) -> MatchedFile:
    """Open a feature file and match its rows by identifiers, the mapping file `order`, or position,
    in this order.
    """
    vectors = open_vectors(path, column)
    if vectors.ids is not None and (vectors.ids.num_columns or order is None):
        match = match_rows(path, vectors.ids, asins)
        how = f"rows matched by {match.column}"
        return MatchedFile(vectors, match.rows, how, True, match.unknown, match.example)
    if order is not None:
        return _match_by_order(vectors, order, asins)
    return _match_by_position(vectors, asins, key)


def _match_by_order(vectors: VectorFile, order: Path, asins: Sequence[str]) -> MatchedFile:
    names = read_order(order, asins)
    if vectors.count != len(names):
        raise UserError(f"{vectors.path}: {vectors.count} rows, {order} names {len(names)}")

    table = pa.table({"asin": pa.array(names, pa.string())})
    match = match_rows(order, table, asins)
    how = f"rows in the order of {order.name}"
    return MatchedFile(vectors, match.rows, how, False, match.unknown, match.example)


def _match_by_position(vectors: VectorFile, asins: Sequence[str], key: str) -> MatchedFile:
    if vectors.count != len(asins):
        raise UserError(
            f"{vectors.path}: {vectors.count} rows, {len(asins)} items, and no identifiers; "
            f"map them by {key}"
        )

    assumed = "rows assumed to be in order of item_id: it holds no identifiers"
    how = f"{assumed}; {key} gives another order"
    return MatchedFile(vectors, np.arange(len(asins)), how, False)


class ImportedFile(NamedTuple):
    """A feature file of a source, and its mapping file."""

    path: Path
    # mapping file, for formats without identifiers; None if row i is item i
    order: Path | None = None

    @property
    def format(self) -> str:
        return format_of(self.path.name)

    def matched(self, asins: Sequence[str]) -> MatchedFile:
        return match_file(self.path, asins, self.order, ROWS)


def feature_files(sources: Path) -> dict[str, ImportedFile]:
    """Return feature set -> its file, of those that `sources.json` lists."""
    paths = raw_files(sources)
    files = {}
    for role, path in paths.items():
        if role.startswith(FEATURE):
            files[role.removeprefix(FEATURE)] = ImportedFile(path, paths.get(ROWS))
    return files


def check_files(
    files: Mapping[str, ImportedFile], asins: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return facts about how files fit the items; UserError for one that does not."""
    facts: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        matched = file.matched(asins)
        facts[name] = {
            "rows": matched.vectors.count,
            "width": matched.vectors.width,
            "matched": matched.how,
        }
        differences = {
            "rows_of_no_item": matched.unknown,
            "items_without_a_row": matched.missing,
            "such_as": matched.example,
            "columns_left_out": list(matched.vectors.left_out),
        }
        facts[name] |= {key: value for key, value in differences.items() if value}
    return facts
