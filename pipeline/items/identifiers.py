"""Rows of files matched with the items of a dataset, by identifiers or by a mapping file. Their order is never guessed.

A table matches by a column with a known name, whose values are the source's identifiers or our item numbers. A file
without identifiers takes its order from a mapping file, such as MMRec's i_id_mapping.csv: identifier, row.

I items, N rows.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.sources.feature_files import NAMES, plain, rank
from pipeline.sources.mapping import permutation, repeated, text_table

# of them, those whose whole numbers are rather our item numbers than the source's identifiers
NUMBERS = ("itemid", "id")
COMPARED = 2000  # items without a row that a foreign identifier is compared with, to name a misspelling


def matched(path: Path, table: pa.Table, asins: Sequence[str]) -> tuple[str, np.ndarray]:
    """Return the column that identifies the items, and the row of each item, int64 [I], of N rows in any order.

    UserError if no column fits the items, or two of them fit in different orders.
    """
    columns = _identifying(path, table)
    fitting = {name: orders for name, column in columns.items() if (orders := set(_orders(column, asins)))}
    if not fitting:
        name, column = min(columns.items(), key=lambda named: rank(named[0]))
        raise UserError(f"{path}{mismatch(name, column, asins)}")
    common = set.intersection(*fitting.values())
    if len(common) > 1:
        raise UserError(f"{path}: column '{next(iter(fitting))}' fits as identifiers and as item numbers; add asin")
    if not common:
        raise UserError(f"{path}: columns {' and '.join(fitting)} order the items differently; keep the right one")
    return min(fitting, key=rank), np.frombuffer(common.pop(), np.int64)


class Placed(NamedTuple):
    """The row of each item, where a file may have more or fewer items."""

    column: str  # that identifies the rows
    rows: np.ndarray  # row of each item, int64 [I]; -1 for none
    unknown: int  # rows of no item
    example: str  # identifier of the first of them, and the item without a row that is spelt almost so


def placed(path: Path, table: pa.Table, asins: Sequence[str]) -> Placed:
    """Return the row of each item, of N rows in any order, which may lack items and have others.

    Values are the source's identifiers; only where no column has any of those, they are numbers of ours.

    Raises:
        UserError: no column is of any of these items, an identifier occurs twice, or columns contradict each other.
    """
    columns = _identifying(path, table)
    texts = {name: found for name, column in columns.items() if (found := _placement(path, name, column, asins))}
    numbers = {name: found for name, column in columns.items() if (found := _numbered(path, name, column, len(asins)))}
    for name in sorted(texts.keys() & numbers.keys()):  # the source's identifiers are numbers too
        if not np.array_equal(texts[name].rows, numbers[name].rows):
            if not texts.keys() - numbers.keys():
                raise UserError(f"{path}: column '{name}' fits as identifiers and as item numbers; add asin")
            del texts[name]
    whole = {name: found for name, found in numbers.items() if len(table) == len(asins) and not found.unknown}
    best = max(((found.rows >= 0).sum() for found in texts.values()), default=0)
    fitting = {name: found for name, found in texts.items() if (found.rows >= 0).sum() == best}
    for name, found in (fitting | (whole if best == len(asins) else {})).items():
        if any(not np.array_equal(found.rows, other.rows) for other in fitting.values()):
            both = " and ".join(sorted({*fitting, name}, key=rank))
            raise UserError(f"{path}: columns {both} order the items differently; keep the right one")
    if chosen := fitting or numbers:
        return chosen[min(chosen, key=rank)]
    name = min(columns, key=rank)
    first = next((value for value in columns[name].to_pylist() if value is not None), None)
    raise UserError(
        f"{path}: none of its {len(table):,} rows is of one of the {len(asins):,} items; {name} is {str(first)[:64]!r} "
        f"there, and {asins[0][:64]!r} here"
    )


def _placement(path: Path, name: str, column: pa.ChunkedArray, asins: Sequence[str]) -> Placed | None:
    values = _texts(column)
    return None if values is None else _placed(path, name, values, pa.array(asins, pa.string()))


def _numbered(path: Path, name: str, column: pa.ChunkedArray, items: int) -> Placed | None:
    if plain(name) not in NUMBERS or not pa.types.is_integer(column.type):
        return None
    return _placed(path, name, column.cast(pa.int64(), safe=False), pa.array(range(items), pa.int64()))


def _placed(path: Path, name: str, values: pa.ChunkedArray, wanted: pa.Array) -> Placed | None:
    rows = pc.index_in(wanted, value_set=values.combine_chunks())
    if rows.null_count == len(wanted):
        return None
    if pc.count_distinct(values, mode="only_valid").as_py() < len(values) - values.null_count:
        raise UserError(f"{path}: {name} {repeated(values.drop_null().to_pylist())!r} occurs twice")
    others = values.filter(pc.invert(pc.is_in(values, value_set=wanted)))
    example = ""
    if len(others):
        first = str(next((value for value in others.to_pylist() if value is not None), ""))[:64]
        lacking = wanted.filter(rows.is_null()).slice(0, COMPARED).cast(pa.string()).to_pylist()
        near = difflib.get_close_matches(first, lacking, 1, 0.8)
        example = repr(first) + (f" (near {near[0]!r})" if near else "")
    return Placed(name, pc.fill_null(rows, -1).to_numpy().astype(np.int64), len(others), example)


def order(path: Path, asins: Sequence[str]) -> list[str]:
    """Return the identifier of each row of a feature file, N texts, from a mapping file.

    It is CSV or tab separated text with a header: a column of identifiers, of which one must occur, and one of rows
    0 .. N-1. UserError unless exactly one pair of columns fits.
    """
    columns = _columns(text_table(path))
    rows = {name: numbers for name, column in columns.items() if (numbers := permutation(column)) is not None}
    known = pa.array(asins, pa.string())
    named = [name for name, column in columns.items() if pc.any(pc.is_in(column, value_set=known)).as_py()]
    pairs = [(name, row) for name in named for row in rows if row != name]
    if len(pairs) > 1:  # the source's identifiers are numbers too
        pairs = [(name, row) for name, row in pairs if plain(row) in NUMBERS and plain(name) not in NUMBERS]
    if len(pairs) != 1:
        raise UserError(
            f"{path}: expected a column of this dataset's identifiers and one of rows 0, 1, 2, ... "
            f"(such as asin, itemID); it has {', '.join(columns) or 'none of the known names'}"
        )
    name, row = pairs[0]
    identifiers = columns[name].to_pylist()
    if len(set(identifiers)) < len(identifiers):
        raise UserError(f"{path}: {name} {repeated(identifiers)!r} occurs twice")
    return [identifiers[i] for i in np.argsort(rows[row])]


def _identifying(path: Path, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    if columns := _columns(table):
        return columns
    raise UserError(
        f"{path}: no column identifies the items ({', '.join(NAMES)}); rename yours, or give the rows' order with "
        "--order"
    )


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    columns: dict[str, pa.ChunkedArray] = {}
    for i, name in enumerate(table.column_names):
        if rank(name) >= 0:
            columns.setdefault(name, table.column(i))
    return columns


def _orders(column: pa.ChunkedArray, asins: Sequence[str]) -> Iterator[bytes]:
    """Yield the row of each item, int64 [I] as bytes, for each way in which the column names every item once."""
    if len(column) != len(asins) or column.null_count:
        return
    readings = [(_texts(column), pa.array(asins, pa.string()))]
    if pa.types.is_integer(column.type):
        readings.append((column.cast(pa.int64(), safe=False), pa.array(range(len(asins)), pa.int64())))
    for values, wanted in readings:
        if values is not None:
            rows = pc.index_in(wanted, value_set=values.combine_chunks())
            if not rows.null_count and pc.count_distinct(values).as_py() == len(wanted):
                yield rows.to_numpy().astype(np.int64).tobytes()


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.string()) if textual or pa.types.is_integer(kind) else None


def mismatch(name: str, column: pa.ChunkedArray, asins: Sequence[str]) -> str:
    numbered = pa.types.is_integer(column.type) and plain(name) in NUMBERS
    values = column.to_pylist() if numbered else [v if isinstance(v, str) else str(v) for v in column.to_pylist()]
    wanted = list(range(len(asins))) if numbered else list(asins)
    given, known = set(values), set(wanted)
    if len(given) < len(values):
        return f": {name} {repeated(values)!r} occurs twice"
    for row, value in enumerate(values):
        if value not in known:
            return f", row {row}: {name} {value!r} is no item of this dataset"
    item, value = next((i, v) for i, v in enumerate(wanted) if v not in given)
    return f": no row for item {item} ({name} {value!r}); {len(values)} rows, {len(wanted)} items"
