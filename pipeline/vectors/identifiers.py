"""Match rows of a file with items by identifiers, never by guessing. I items, N rows."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.io.errors import UserError

IDENTIFIER_COLUMNS = (
    "asin",
    "item_id",
    "item",
    "parent_asin",
    "sku",
    "movie_id",
    "product_id",
    "product",
    "book_id",
    "article_id",
    "iid",
    "id",
)  # best first, compared by `plain_name`
RANKS = {name.replace("_", ""): rank for rank, name in enumerate(IDENTIFIER_COLUMNS)}
# plain names of columns whose integers are item numbers rather than the source's identifiers
ITEM_NUMBER_COLUMNS = ("itemid", "id")
MAX_SHOWN_ID_CHARACTERS = 64  # of an identifier in a message


def plain_name(column: str) -> str:
    """Return the letters and digits of a name in lower case, without accents."""
    letters = unicodedata.normalize("NFKD", column).casefold()
    return "".join(filter(str.isalnum, letters))


def rank_identifier(column: str) -> int:
    """Return the rank of an identifier column, 0 for the best; -1 for other columns."""
    return RANKS.get(plain_name(column), -1)


class RowMatch(NamedTuple):
    """Row of each item; the file may have more or fewer items."""

    column: str  # identifier column
    rows: np.ndarray  # row of each item, int64 [I]; -1 for none
    unknown: int  # rows that match no item
    example: str  # identifier of the first such row

    @property
    def n_matched(self) -> int:
        return int((self.rows >= 0).sum())

    def agrees(self, other: "RowMatch") -> bool:
        return np.array_equal(self.rows, other.rows)


def match_rows(path: Path, table: pa.Table, asins: Sequence[str]) -> RowMatch:
    """Find the row of each item by identifier columns.

    Raises UserError if none fits or two disagree.
    """
    columns = _identifier_columns(path, table)
    # values are the source's identifiers, or item numbers only if no column has any identifier
    by_identifier, by_number = _match_columns(path, columns, asins)
    _resolve_integers(path, by_identifier, by_number)

    most_matched = max((match.n_matched for match in by_identifier.values()), default=0)
    best = {name: match for name, match in by_identifier.items() if match.n_matched == most_matched}
    compared = dict(best)
    if most_matched == len(asins) == len(table):
        compared |= {name: match for name, match in by_number.items() if not match.unknown}
    _require_agreement(path, best, compared)

    candidates = best or by_number
    if not candidates:
        raise _no_match(path, columns, len(table), asins)
    return candidates[min(candidates, key=rank_identifier)]


def _identifier_columns(path: Path, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if rank_identifier(name) >= 0:
            columns.setdefault(name, column)
    if not columns:
        names = ", ".join(IDENTIFIER_COLUMNS)
        raise UserError(
            f"{path}: no column identifies the items ({names}); rename yours, or give --order"
        )
    return columns


def _match_columns(
    path: Path, columns: Mapping[str, pa.ChunkedArray], asins: Sequence[str]
) -> tuple[dict[str, RowMatch], dict[str, RowMatch]]:
    """Match columns with the source's identifiers, and with item numbers.

    Raises UserError for a repeated value.
    """
    identifiers = pa.array(asins, pa.string())
    numbers = pa.array(range(len(asins)), pa.int64())
    by_identifier: dict[str, RowMatch] = {}
    by_number: dict[str, RowMatch] = {}

    for name, chunks in columns.items():
        column = chunks.unify_dictionaries()
        # distinct values suffice to see whether they are identifiers, and bound the memory
        distinct = pa.chunked_array([column.unique().drop_null()])
        repeated = None
        values = column
        if len(distinct) < len(column) - column.null_count:
            repeated = _first_repeated(column)
            values = distinct

        if _may_identify(column.type):
            texts = values.cast(pa.string())
            _match_values(by_identifier, name, texts, identifiers)
        if plain_name(name) in ITEM_NUMBER_COLUMNS and pa.types.is_integer(column.type):
            integers = values.cast(pa.int64(), safe=False)
            _match_values(by_number, name, integers, numbers)

        is_matched = name in by_identifier or name in by_number
        if repeated is not None and is_matched:
            raise UserError(f"{path}: {name} {repeated!r} occurs twice; keep one row of it")
    return by_identifier, by_number


def _first_repeated(column: pa.ChunkedArray) -> object:
    counts = pc.value_counts(column.drop_null())
    is_repeated = pc.greater(counts.field("counts"), 1)
    return counts.filter(is_repeated).field("values")[0].as_py()


def _may_identify(kind: pa.DataType) -> bool:
    """Return whether values are texts or integers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
    return is_text or pa.types.is_integer(kind)


def _match_values(
    matches: dict[str, RowMatch], name: str, values: pa.ChunkedArray, items: pa.Array
) -> None:
    """Add the row of each item to `matches`, if the column contains any of them."""
    rows = pc.index_in(items, value_set=values.combine_chunks())
    if rows.null_count == len(items):
        return

    unknown = values.filter(pc.invert(pc.is_in(values, value_set=items)))
    example = ""
    if len(unknown):
        first = next(filter(None, unknown.to_pylist()), "")
        example = repr(str(first)[:MAX_SHOWN_ID_CHARACTERS])
    matched_rows = pc.fill_null(rows, -1).to_numpy().astype(np.int64)
    matches[name] = RowMatch(name, matched_rows, len(unknown), example)


def _resolve_integers(
    path: Path, by_identifier: dict[str, RowMatch], by_number: Mapping[str, RowMatch]
) -> None:
    """Drop identifiers that are item numbers.

    Raises UserError if no other column can tell which they are.
    """
    has_other_column = by_identifier.keys() - by_number.keys()
    for name in sorted(by_identifier.keys() & by_number.keys()):
        if by_identifier[name].agrees(by_number[name]):
            continue
        if not has_other_column:
            raise UserError(
                f"{path}: column '{name}' fits as identifiers and as item numbers; add asin"
            )
        del by_identifier[name]


def _require_agreement(
    path: Path, best: Mapping[str, RowMatch], compared: Mapping[str, RowMatch]
) -> None:
    for name, match in compared.items():
        if not all(match.agrees(other_match) for other_match in best.values()):
            names = " and ".join(sorted({*best, name}, key=rank_identifier))
            raise UserError(
                f"{path}: columns {names} order the items differently; keep the right one"
            )


def _no_match(
    path: Path, columns: Mapping[str, pa.ChunkedArray], rows: int, asins: Sequence[str]
) -> UserError:
    name = min(columns, key=rank_identifier)
    first = next(iter(columns[name].drop_null().slice(0, 1).to_pylist()), None)
    in_file = repr(str(first)[:MAX_SHOWN_ID_CHARACTERS])
    in_dataset = repr(asins[0][:MAX_SHOWN_ID_CHARACTERS])
    return UserError(
        f"{path}: none of its {rows:,} rows is of one of the {len(asins):,} items; "
        f"{name} is {in_file} there, and {in_dataset} here"
    )
