"""Mapping files: which identifier has which row or number, as in MMRec's i_id_mapping.csv."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import refuse_repeated
from alignrec.pipeline.io.text import first_line
from alignrec.pipeline.vectors.identifiers import ITEM_NUMBER_COLUMNS, plain_name, rank_identifier

ROW = "row"  # plain name of a column of rows


def read_order(path: Path, asins: Sequence[str]) -> list[str]:
    """Return the identifier of each row; UserError unless one pair of columns fits."""
    columns = _read_columns(path)
    known_columns = {name: column for name, column in columns.items() if _is_known(name)}
    name, rows = _find_pair(path, known_columns, asins)
    identifiers = known_columns[name].to_pylist()

    repeated, times = Counter(identifiers).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {name} {repeated!r} occurs twice")
    return [identifiers[i] for i in np.argsort(rows)]


def _find_pair(
    path: Path, columns: Mapping[str, pa.ChunkedArray], asins: Sequence[str]
) -> tuple[str, np.ndarray]:
    """Return the column of identifiers, and the numbers of that of rows, such as MMRec's asin and
    itemID.
    """
    items = pa.array(asins, pa.string())
    identifier_columns = []
    rows_of_columns: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if pc.any(pc.is_in(column, value_set=items)).as_py():
            identifier_columns.append(name)
        rows = _read_permutation(column)
        if rows is not None:
            rows_of_columns[name] = rows

    pairs = [pair for pair in product(identifier_columns, rows_of_columns) if pair[0] != pair[1]]
    if len(pairs) > 1:  # identifiers of the source may be integers too
        pairs = [pair for pair in pairs if not _is_number(pair[0]) and _is_number(pair[1])]

    if len(pairs) != 1:
        rows_column = "one of rows 0, 1, 2, ... (such as asin, itemID)"
        expected = f"a column of this dataset's identifiers and {rows_column}"
        present = ", ".join(columns) or "none of the known names"
        raise UserError(f"{path}: expected {expected}; it has {present}")
    name, row_column = pairs[0]
    return name, rows_of_columns[row_column]


def _is_known(column: str) -> bool:
    return rank_identifier(column) >= 0 or plain_name(column) == ROW


def _is_number(column: str) -> bool:
    return plain_name(column) in (*ITEM_NUMBER_COLUMNS, ROW)


def read_numbering(path: Path, number: str, names: Sequence[str], count: int) -> list[str]:
    """Return the identifiers of numbers 0 .. count-1, from columns `number` and one of `names`."""
    columns = _read_columns(path)
    name = next((name for name in names if name in columns), None)
    if number not in columns or name is None:
        present = ", ".join(columns)
        raise UserError(f"{path}: expected the columns {names[0]} and {number}; it has {present}")

    identifiers = [value.strip() for value in columns[name].to_pylist()]
    if len({*identifiers, ""}) <= len(identifiers):
        repeated, _ = Counter(["", *identifiers]).most_common(1)[0]
        raise UserError(f"{path}: {name} {repeated!r} is empty or occurs twice; keep one row each")

    numbers = _read_permutation(columns[number])
    if numbers is None or len(identifiers) != count:
        raise UserError(
            f"{path}: {len(identifiers):,} rows, expected {number} 0 .. {count - 1:,}, each once"
        )
    return [identifiers[i] for i in np.argsort(numbers)]


def _read_permutation(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return the numbers of a text column, int64 [N], if they are a permutation of 0 .. N-1."""
    try:
        numbers = column.cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        return None
    if not len(numbers) or numbers.dtype.kind != "i":  # nulls make the numbers floats
        return None
    return numbers if np.array_equal(np.sort(numbers), np.arange(len(numbers))) else None


def _read_columns(path: Path) -> dict[str, pa.ChunkedArray]:
    """Return column -> its values as text; UserError for columns with equal names."""
    try:
        header = first_line(path)
        delimiter = "\t" if "\t" in header else ","
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        table = csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, skip_rows=1),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as e:
        fault = e.strerror or e
        raise UserError(f"{path}: {fault}; --order names a mapping file: identifier, row") from None
    except (pa.ArrowException, UnicodeDecodeError) as e:
        fault = " ".join(str(e).split())
        raise UserError(f"{path}: not readable as a mapping file: {fault}") from None
    refuse_repeated(path, names, filter(None, names))
    return {name: table.columns[names.index(name)] for name in names}
