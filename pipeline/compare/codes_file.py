"""Third-party semantic IDs: a Parquet file with a column of codes, matched with a dataset's items.

I items, n of them with codes, L levels, K codes a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.compare import feature_set
from pipeline.errors import UserError, one_line
from pipeline.items import identifiers
from pipeline.semantic_ids.quality import Codes

IDS, COLUMN = "semantic_ids.parquet", "codes"
LEVELS, HIGHEST = 16, 65_535


@dataclass(frozen=True)
class Given:
    """Semantic IDs from a file."""

    name: str
    source: str
    codes: Codes


def holds_codes(spec: str) -> bool:
    """Return whether a file, or `name=file`, is a Parquet file with a column of codes, or a folder with one."""
    path = _file(Path(feature_set.named(spec)[1]))
    try:
        return path.suffix == ".parquet" and path.is_file() and COLUMN in pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError):
        return False  # it is read as features, which says what is wrong


def read(spec: str, asins: Sequence[str]) -> Given:
    """Return the codes of a file: item_id or asin in any order, codes (null: none), and perhaps a suffix.

    Raises:
        UserError: unreadable, other items, or codes that are not lists of integers of one length.
    """
    name, path = feature_set.named(spec)
    where = _file(Path(path))
    try:
        table = pq.read_table(where, partitioning=None)
        column, rows = identifiers.matched(where, table, asins)
        table = table.take(rows)
        codes = _codes(where, table[COLUMN].combine_chunks())
        items = np.flatnonzero(table[COLUMN].is_valid().to_numpy())
        suffix = _suffix(where, table, items)
    except (pa.ArrowException, OSError, ValueError) as e:
        raise UserError(f"{where}: not readable as codes: {one_line(e)}") from None
    k = max(2, int(codes.max(initial=0)) + 1)
    source = f"{where.name}, rows matched by {column}, K from the highest code"
    return Given(name or feature_set.short(Path(path)), source, Codes(items, codes, k, suffix))


def _codes(path: Path, column: pa.Array) -> np.ndarray:
    """Return int32 [n, L]."""
    kind = column.type
    lists = pa.ListType, pa.LargeListType, pa.FixedSizeListType
    if not isinstance(kind, lists) or not pa.types.is_integer(kind.value_type):
        raise UserError(f"{path}: column '{COLUMN}' is {kind}, expected lists of whole numbers")
    present = column.drop_null()
    lengths = pc.unique(pc.list_value_length(present)).to_pylist()
    if len(lengths) != 1 or not 1 <= lengths[0] <= LEVELS:
        found = ", ".join(map(str, sorted(lengths)[:5])) or "none"
        raise UserError(f"{path}: column '{COLUMN}' holds lists of lengths {found}; expected one, 1 .. {LEVELS}")
    flat = pc.list_flatten(present)
    if flat.null_count or not 0 <= pc.min(flat).as_py() <= pc.max(flat).as_py() <= HIGHEST:
        raise UserError(f"{path}: column '{COLUMN}' holds a code that is null or not in 0 .. {HIGHEST:,}")
    return flat.to_numpy().astype(np.int32).reshape(-1, lengths[0])


def _suffix(path: Path, table: pa.Table, items: np.ndarray) -> np.ndarray | None:
    if "suffix" not in table.column_names or table["suffix"].null_count == len(table):
        return None
    column = table["suffix"].take(pa.array(items))
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"{path}: column 'suffix' must be a whole number wherever there are codes")
    return column.to_numpy().astype(np.int32)


def _file(path: Path) -> Path:
    return path / IDS if (path / IDS).is_file() else path
