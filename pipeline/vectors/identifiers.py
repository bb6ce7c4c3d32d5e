"""Match rows of a file with items, by identifiers or a mapping file, never by guessing. I items, N rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.feature_files import NAMES, plain_name, rank_identifier
from alignrec.pipeline.sources.mmrec import read_permutation, text_table

# identifier columns whose integers are item numbers rather than the source's identifiers
NUMBERS = ("itemid", "id")


class RowMatch(NamedTuple):
    """Row of each item; the file may have more or fewer items."""

    column: str  # identifier column
    rows: np.ndarray  # row of each item, int64 [I]; -1 for none
    unknown: int  # rows that match no item
    example: str  # identifier of the first such row


def match_rows(path: Path, table: pa.Table, asins: Sequence[str]) -> RowMatch:
    """Find the row of each item by the table's identifier columns; raise UserError if none fits or two disagree."""
    # values are the source's identifiers, or item numbers only if no column has any identifier
    names = dict.fromkeys(name for name in table.column_names if rank_identifier(name) >= 0)
    if not (columns := {name: table.column(table.column_names.index(name)) for name in names}):
        known = ", ".join(NAMES)
        raise UserError(
            f"{path}: no column identifies the items ({known}); rename yours, or give --order"
        )
    texts, numbers = _read_columns(path, columns, asins)
    for name in sorted(
        texts.keys() & numbers.keys()
    ):  # identifiers of the source may be integers too
        if not np.array_equal(texts[name].rows, numbers[name].rows):
            if not texts.keys() - numbers.keys():
                raise UserError(
                    f"{path}: column '{name}' fits as identifiers and as item numbers; add asin"
                )
            del texts[name]
    whole = {
        name: found
        for name, found in numbers.items()
        if len(table) == len(asins) and not found.unknown
    }
    best = max(((found.rows >= 0).sum() for found in texts.values()), default=0)
    fitting = {name: found for name, found in texts.items() if (found.rows >= 0).sum() == best}
    for name, found in (fitting | (whole if best == len(asins) else {})).items():
        if any(not np.array_equal(found.rows, other.rows) for other in fitting.values()):
            both = " and ".join(sorted({*fitting, name}, key=rank_identifier))
            raise UserError(
                f"{path}: columns {both} order the items differently; keep the right one"
            )
    if chosen := fitting or numbers:
        return chosen[min(chosen, key=rank_identifier)]
    name = min(columns, key=rank_identifier)
    first = next(iter(columns[name].drop_null().slice(0, 1).to_pylist()), None)
    example = f"{name} is {str(first)[:64]!r} there, and {asins[0][:64]!r} here"
    raise UserError(
        f"{path}: none of its {len(table):,} rows is of one of the {len(asins):,} items; {example}"
    )


def _read_columns(
    path: Path, columns: Mapping[str, pa.ChunkedArray], asins: Sequence[str]
) -> tuple[dict[str, RowMatch], dict[str, RowMatch]]:
    wanted, ids = pa.array(asins, pa.string()), pa.array(range(len(asins)), pa.int64())
    # columns with the source's identifiers, and columns with item numbers
    texts, numbers = dict[str, RowMatch](), dict[str, RowMatch]()
    for name, column in columns.items():
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        column = column.unify_dictionaries()
        # distinct values suffice to see whether they are identifiers, and bound the memory
        distinct = pa.chunked_array([column.unique().drop_null()])
        repeated = None
        if len(distinct) < len(column) - column.null_count:
            counts = pc.value_counts(column.drop_null())
            repeated = (
                counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()
            )
        values = column if repeated is None else distinct
        textual = (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind)
        )
        if textual or pa.types.is_integer(kind):
            _match_column(texts, name, values.cast(pa.string()), wanted)
        if plain_name(name) in NUMBERS and pa.types.is_integer(column.type):
            _match_column(numbers, name, values.cast(pa.int64(), safe=False), ids)
        if repeated is not None and (name in texts or name in numbers):
            raise UserError(f"{path}: {name} {repeated!r} occurs twice; keep one row of it")
    return texts, numbers


def _match_column(
    found: dict[str, RowMatch], name: str, values: pa.ChunkedArray, wanted: pa.Array
) -> None:
    """Add the rows of `wanted` in a column to `found`, if the column contains any of them."""
    rows = pc.index_in(wanted, value_set=values.combine_chunks())
    if rows.null_count < len(wanted):
        others = values.filter(pc.invert(pc.is_in(values, value_set=wanted)))
        example = repr(str(next(filter(None, others.to_pylist()), ""))[:64]) if len(others) else ""
        found[name] = RowMatch(
            name, pc.fill_null(rows, -1).to_numpy().astype(np.int64), len(others), example
        )


def read_order(path: Path, asins: Sequence[str]) -> list[str]:
    """Read a mapping file and return the identifier of each row; raise UserError unless one pair of columns fits."""
    columns = {
        name: column for name, column in text_table(path).items() if rank_identifier(name) >= 0
    }
    rows = {
        name: numbers
        for name, column in columns.items()
        if (numbers := read_permutation(column)) is not None
    }
    known = pa.array(asins, pa.string())
    named = [
        name
        for name, column in columns.items()
        if pc.any(pc.is_in(column, value_set=known)).as_py()
    ]
    # pairs of a column of identifiers and one of rows 0 .. N-1, such as asin and itemID of MMRec's i_id_mapping.csv
    pairs = [(name, row) for name in named for row in rows if row != name]
    if len(pairs) > 1:  # identifiers of the source may be integers too
        pairs = [
            (name, row)
            for name, row in pairs
            if plain_name(row) in NUMBERS and plain_name(name) not in NUMBERS
        ]
    if len(pairs) != 1:
        expected = "expected a column of this dataset's identifiers and one of rows 0, 1, 2, ... (such as asin, itemID)"
        raise UserError(
            f"{path}: {expected}; it has {', '.join(columns) or 'none of the known names'}"
        )
    name, row = pairs[0]
    identifiers = columns[name].to_pylist()
    repeated, times = Counter(identifiers).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {name} {repeated!r} occurs twice")
    return [identifiers[i] for i in np.argsort(rows[row])]
