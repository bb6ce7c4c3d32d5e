"""Rows of files matched with the items of a dataset, by identifiers or by a mapping file. Their order is never guessed.

A table matches by a column with a known name, whose values are the source's identifiers or our item numbers. A file
without identifiers takes its order from a mapping file, such as MMRec's i_id_mapping.csv: identifier, row. The same
file says what the numbers of a published split are at the source.

I items, N rows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline.errors import UserError

NAMES = ("asin", "item_id", "item", "itemID", "parent_asin", "sku", "id")
"""columns that identify items, whatever their case"""
NUMBERS = ("item_id", "itemid", "id")
"""of them, those whose whole numbers are rather our item numbers than the source's identifiers"""


def present(table: pa.Table) -> bool:
    """Return whether a column with a known name identifies the rows."""
    return bool(_columns(table))


def matched(path: Path, table: pa.Table, asins: Sequence[str]) -> tuple[str, np.ndarray]:
    """Return the column that identifies the items, and the row of each item, int64 [I], of N rows in any order.

    UserError if no column fits the items, or two of them fit in different orders.
    """
    columns = _columns(table)
    if not columns:
        raise UserError(
            f"{path}: no column identifies the items ({', '.join(NAMES)}); rename yours, or give the rows' order "
            "with --order"
        )
    fitting = {name: orders for name, column in columns.items() if (orders := set(_orders(column, asins)))}
    if not fitting:
        name, column = min(columns.items(), key=lambda named: _rank(named[0]))
        raise UserError(f"{path}{mismatch(name, column, asins)}")
    common = set.intersection(*fitting.values())
    if len(common) > 1:
        raise UserError(f"{path}: column '{next(iter(fitting))}' fits as identifiers and as item numbers; add asin")
    if not common:
        raise UserError(f"{path}: columns {' and '.join(fitting)} order the items differently; keep the right one")
    return min(fitting, key=_rank), np.frombuffer(common.pop(), np.int64)


def order(path: Path, asins: Sequence[str]) -> list[str]:
    """Return the identifier of each row of somebody's feature file, N texts, from a mapping file.

    It is CSV or tab separated text with a header: a column of identifiers, of which one must occur, and one of rows
    0 .. N-1. UserError unless exactly one pair of columns fits.
    """
    columns = _columns(_text_table(path))
    rows = {name: numbers for name, column in columns.items() if (numbers := _permutation(column)) is not None}
    known = pa.array(asins, pa.string())
    named = [name for name, column in columns.items() if pc.any(pc.is_in(column, value_set=known)).as_py()]
    pairs = [(name, row) for name in named for row in rows if row != name]
    if len(pairs) > 1:  # the source's identifiers are numbers too
        pairs = [(name, row) for name, row in pairs if row.casefold() in NUMBERS and name.casefold() not in NUMBERS]
    if len(pairs) != 1:
        raise UserError(
            f"{path}: expected a column of this dataset's identifiers and one of rows 0, 1, 2, ... "
            f"(such as asin, itemID); it has {', '.join(columns) or 'none of the known names'}"
        )
    name, row = pairs[0]
    identifiers = columns[name].to_pylist()
    if len(set(identifiers)) < len(identifiers):
        raise UserError(f"{path}: {name} {_repeated(identifiers)!r} occurs twice")
    return [identifiers[i] for i in np.argsort(rows[row])]


def numbered(path: Path, number: str, names: Sequence[str], count: int) -> list[str]:
    """Return the identifier of numbers 0 .. count-1 from a mapping file of a published split.

    Args:
        path: CSV or tab separated text with a header.
        number: its column of numbers, such as itemID.
        names: its column of identifiers is called one of these; where it has two columns, it is the other.
        count: how many numbers the split's interactions have.

    Raises:
        UserError: no such columns, a number or identifier that occurs twice or is none, or other numbers than the
            interactions have.
    """
    table = _text_table(path)
    columns = {column: table.column(i) for i, column in reversed([*enumerate(table.column_names)])}
    others = [column for column in columns if column != number]
    name = next((n for n in names if n in others), others[0] if len(others) == 1 else None)
    if number not in columns or name is None:
        raise UserError(f"{path}: expected the columns {names[0]} and {number}; it has {', '.join(table.column_names)}")
    found = [value.strip() for value in columns[name].to_pylist()]
    for column, values in ((number, columns[number].to_pylist()), (name, found)):
        if len(set(values)) < len(values):
            again = _repeated(values)
            rows = [i + 2 for i, value in enumerate(values) if value == again][:2]
            raise UserError(f"{path}, lines {rows[0]} and {rows[1]}: {column} {again!r} occurs twice; keep one")
    if "" in found:
        raise UserError(f"{path}, line {found.index('') + 2}: no {name}")
    if (rows_of := _permutation(columns[number])) is None:
        raise UserError(f"{path}: {number} holds other values than 0 .. {len(found) - 1:,}, each once")
    if len(found) != count:
        raise UserError(
            f"{path}: names {len(found):,} {number}s, and the interactions number {count:,}; give the two files of one "
            "split"
        )
    return [found[i] for i in np.argsort(rows_of)]


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the columns with known names; of two with one name the first."""
    known = {name.casefold() for name in NAMES}
    columns: dict[str, pa.ChunkedArray] = {}
    for i, name in enumerate(table.column_names):
        if name.casefold() in known:
            columns.setdefault(name, table.column(i))
    return columns


def _rank(name: str) -> int:
    return [known.casefold() for known in NAMES].index(name.casefold())


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
    """Return text or whole numbers as text; None for anything else."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.string()) if textual or pa.types.is_integer(kind) else None


def mismatch(name: str, column: pa.ChunkedArray, asins: Sequence[str]) -> str:
    """Return what is wrong first: a value that is doubled or of no item, or an item without a row."""
    numbered = pa.types.is_integer(column.type) and name.casefold() in NUMBERS
    values = column.to_pylist() if numbered else [v if isinstance(v, str) else str(v) for v in column.to_pylist()]
    wanted = list(range(len(asins))) if numbered else list(asins)
    given, known = set(values), set(wanted)
    if len(given) < len(values):
        return f": {name} {_repeated(values)!r} occurs twice"
    for row, value in enumerate(values):
        if value not in known:
            return f", row {row}: {name} {value!r} is no item of this dataset"
    item, value = next((i, v) for i, v in enumerate(wanted) if v not in given)
    return f": no row for item {item} ({name} {value!r}); {len(values)} rows, {len(wanted)} items"


def _repeated(values: Sequence[object]) -> object:
    """Return the first value that occurs again; there is one."""
    seen = set[object]()
    return next(v for v in values if v in seen or seen.add(v))  # type: ignore[func-returns-value]


def _permutation(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return the whole numbers of a column of text, int64 [N], if they are 0 .. N-1 in some order; else None."""
    try:
        numbers = column.cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        return None
    whole = numbers.dtype.kind == "i" and np.array_equal(np.sort(numbers), np.arange(len(numbers)))
    return numbers if whole and len(numbers) else None


def _text_table(path: Path) -> pa.Table:
    """Return a CSV or tab separated file as columns of text."""
    try:
        with path.open(encoding="utf-8-sig") as f:
            header = f.readline(65536).rstrip("\r\n")
        delimiter = "\t" if "\t" in header else ","
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, skip_rows=1),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; --order names a mapping file: identifier, row") from None
    except (pa.ArrowException, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not readable as a mapping file: {' '.join(str(e).split())}") from None
