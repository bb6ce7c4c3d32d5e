"""Convert any table of interactions to the schema INTERACTIONS: dense ids and a split. U users, I
items, N rows.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.dataset import split_tables
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.split import Split, load_split
from alignrec.pipeline.dataset.split_sql import MMREC, PROTOCOLS, Division
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import nearest, require_known
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import COLD_ITEMS, SPARSE

# columns and their types; `user` and `item` are required, `split` is train, valid, test or 0, 1, 2
TYPES = dict.fromkeys(("user", "item", "split"), pa.string()) | {
    "rating": pa.float32(),
    "timestamp": pa.int64(),
}
GIVEN = "given"  # protocol of a split that the interactions contain


class Splitting(NamedTuple):
    """How to filter and split interactions; see `alignrec.fit`."""

    protocol: str | None = None  # None keeps the column `split`, or means `mmrec` without one
    user_core: int = 1
    item_core: int = 1
    seed: int = 0
    cold_share: float = Division().cold_share
    most_train: int = Division().most_train


@dataclass(frozen=True)
class Numbered:
    """Interactions with dense user and item ids and a split."""

    table: pa.Table  # interactions, schema INTERACTIONS
    users: np.ndarray  # [U], original identifiers of users 0 .. U-1
    items: np.ndarray  # [I], original identifiers of items 0 .. I-1
    # protocol of the split, with its setting if any (`cold-items 0.2`); GIVEN if it was kept
    protocol: str
    dropped: Mapping[str, int]  # number of dropped rows by reason

    def split(self) -> Split:
        """Return the train, valid and test parts."""
        parts = load_split(self.table, len(self.users), len(self.items))
        is_division = self.protocol.startswith((COLD_ITEMS, SPARSE))
        return replace(parts, division=self.protocol if is_division else "")


def number(interactions: Any, ids: Iterable[Any] | None, how: Splitting) -> Numbered:
    """Map users and items to dense ids, then filter and split the interactions.

    Args:
        interactions: A table from pandas, Polars, PyArrow or any library that supports the Arrow
            interface; a mapping
            of columns; a structured NumPy array; or an array [N, 2] or [N, 3] of user, item and
            timestamp. Columns are user, item and, optionally, rating, timestamp and split (train,
            valid, test or 0, 1, 2).
        ids: Identifiers of the catalogue's items, in order. Rows of other items are dropped. By
            default the catalogue
            consists of the items that occur, in order of first appearance.
        how: How to filter and split.

    Raises:
        UserError: If the input is not a table, a column is missing or has the wrong type, the
            protocol is unknown, or
            no rows are left.
    """
    raw = _as_table(interactions)
    require_known([how.protocol] if how.protocol else [], PROTOCOLS, "protocol")
    table = _cast_columns(raw)
    if ids is None:
        result = _split_rows(table, how)
        items = result.items
        dropped = Counter(result.dropped)
    else:
        names = [str(name) for name in ids]
        covered = _keep_covered(table, names)
        result = _renumber_items(_split_rows(covered, how), names)
        items = np.array(names, object)
        missing = table["item"].null_count
        uncovered = len(table) - len(covered) - missing
        dropped = Counter({"item without a vector": uncovered, "missing_value": missing})
        dropped += Counter(result.dropped)

    return replace(
        result,
        users=_as_typed(result.users, raw["user"].type),
        items=_as_typed(items, raw["item"].type),
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def _renumber_items(result: Numbered, names: list[str]) -> Numbered:
    """Number items by their place in the catalogue `names`."""
    catalogue = pa.array(names, pa.string())
    places = pc.index_in(pa.array(result.items, pa.string()), value_set=catalogue).to_numpy()

    rows = result.table
    item_ids = pa.array(places[rows["item_id"].to_numpy()], pa.int32())
    return replace(result, table=io.set_column(rows, "item_id", item_ids))


def _keep_covered(table: pa.Table, names: list[str]) -> pa.Table:
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise UserError(f"ids: '{name}' occurs twice; give each vector an id of its own")
    covered = table.filter(pc.is_in(table["item"], value_set=pa.array(names, pa.string())))
    if not len(covered):
        first = f"; the vectors are of {names[0]}, ..." if names else ""
        raise UserError(
            f"interactions: none of their items, {table['item'][0]}, ..., has a vector{first}; "
            "give `ids`, the item of each vector"
        )
    return covered


def _as_table(interactions: Any) -> pa.Table:
    if isinstance(interactions, np.ndarray) and interactions.dtype.names:
        interactions = {name: interactions[name] for name in interactions.dtype.names}
    if isinstance(interactions, np.ndarray):
        if interactions.ndim != 2 or interactions.shape[1] not in (2, 3):
            raise UserError(
                f"interactions: an array of shape {interactions.shape}; "
                "give [N, 2], user and item, or [N, 3], and time"
            )
        interactions = dict(zip(("user", "item", "timestamp"), interactions.T, strict=False))
    try:
        table = interactions if isinstance(interactions, pa.Table) else pa.table(interactions)
    except (TypeError, ValueError, pa.ArrowException) as e:
        kind, reason = type(interactions).__name__, " ".join(str(e).split())
        raise UserError(
            f"interactions: {kind} is no table ({reason}); "
            "give columns user, item and, if known, timestamp"
        ) from None
    for column in ("user", "item"):
        if column not in table.column_names:
            raise UserError(
                f"interactions: no column '{column}'{nearest(column, table.column_names)}; rename "
                "it"
            )
    if not len(table):
        raise UserError("interactions: the table has no rows")
    return table.select([column for column in TYPES if column in table.column_names])


def _cast_columns(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        column = table[name]
        try:
            if name == "timestamp" and pa.types.is_temporal(column.type):
                column = pc.cast(column, pa.timestamp("s"), safe=False)
            # pandas stores integers with missing values as floats
            if pa.types.is_string(TYPES[name]) and pa.types.is_floating(column.type):
                column = pc.cast(column, pa.int64())
            columns[name] = pc.cast(column, TYPES[name])
        except pa.ArrowException as e:
            raise UserError(
                f"interactions: column '{name}' is {column.type}, and not all of it fits "
                f"{TYPES[name]} "
                f"({' '.join(str(e).split())}); correct it"
            ) from None
    return pa.table(columns)


def _split_rows(table: pa.Table, how: Splitting) -> Numbered:
    has_split = how.protocol is None and "split" in table.column_names
    if has_split and max(how.user_core, how.item_core) > 1:
        raise UserError(
            "user_core, item_core: the column 'split' is kept; give a protocol to replace it"
        )

    # the same queries as in the stage `interactions`, so that both give the same split
    seed = seed_for("split", how.seed)
    division = Division(how.protocol or MMREC, seed, how.cold_share, how.most_train)
    query = _select_columns(table, has_split)
    with (
        tempfile.TemporaryDirectory() as folder,
        split_tables.create_database(Path(folder) / "scratch", Interactions().memory_limit) as db,
    ):
        db.register("given", table)
        if has_split:
            parts = split_tables.import_split(db, query)
        else:
            parts = split_tables.divide_ratings(db, query, how.user_core, how.item_core, division)
        users = pa.concat_tables(parts.users)
        items = pa.concat_tables(parts.item_ids)
        rows = pa.concat_tables(parts.interactions)

    protocol = GIVEN if has_split else parts.division or division.protocol
    return Numbered(rows, users["user"].to_numpy(), items["asin"].to_numpy(), protocol, parts.drops)


def _select_columns(table: pa.Table, has_split: bool) -> str:
    """Return SQL for the columns of interactions; absent ones are NULL."""
    columns = ["user", "item"]
    for name, sql_type in (("rating", "FLOAT"), ("timestamp", "BIGINT")):
        is_given = name in table.column_names
        columns.append(name if is_given else f"NULL::{sql_type} AS {name}")
    if has_split:
        columns.append("split")

    return f"SELECT {', '.join(columns)} FROM given"


def _as_typed(names: np.ndarray, kind: pa.DataType) -> np.ndarray:
    whole = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    try:
        return pc.cast(pa.array(names, pa.string()), pa.int64()).to_numpy() if whole else names
    except pa.ArrowInvalid:  # the catalogue also has identifiers that are not numbers
        return names
