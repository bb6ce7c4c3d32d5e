"""Any table of interactions -> schema INTERACTIONS: numbered and split. Letters: U users, I items, N rows."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.config.base import known, nearest
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions import build, division
from alignrec.pipeline.interactions.division import MMREC, Division
from alignrec.pipeline.interactions.params import Interactions
from alignrec.pipeline.interactions.split import Split, load_split
from alignrec.schemas import COLD_ITEMS, SPARSE

TYPES = {
    "user": pa.string(),
    "item": pa.string(),
    "rating": pa.float32(),
    "timestamp": pa.int64(),
    "split": pa.string(),
}
"""column -> type; user and item are required, split is train, valid, test or 0, 1, 2"""
GIVEN = "given"
"""name of a split that came with the interactions"""


class Splitting(NamedTuple):
    """How interactions are filtered and split."""

    protocol: str | None = None
    """mmrec, user-time, leave-one-out, global-time, cold-items or sparse; None: as column `split` says, else mmrec"""
    user_core: int = 1
    """users with fewer interactions are dropped, repeatedly with items"""
    item_core: int = 1
    seed: int = 0
    """of a split in random order, and of the items that are cold"""
    cold_share: float = Division().cold_share
    """of the items, under cold-items: they have no train interactions"""
    most_train: int = Division().most_train
    """train interactions per user, under sparse"""


@dataclass(frozen=True)
class Numbered:
    """Interactions with dense numbers and a split."""

    table: pa.Table
    """schema INTERACTIONS"""
    users: np.ndarray
    """[U], identifier of user 0 .. U-1, as given"""
    items: np.ndarray
    """[I], identifier of item 0 .. I-1, as given"""
    protocol: str
    """of the split, with its number if it needs content; GIVEN if it came with the rows"""
    dropped: Mapping[str, int]
    """reason -> rows"""

    def split(self) -> Split:
        """Return train, valid and test."""
        parts = load_split(self.table, len(self.users), len(self.items))
        return replace(parts, division=self.protocol if self.protocol.startswith((COLD_ITEMS, SPARSE)) else "")


def number(interactions: Any, ids: Iterable[Any] | None, how: Splitting) -> Numbered:
    """Number and split interactions.

    Args:
        interactions: a table of pandas, Polars, PyArrow or any that speaks Arrow; a mapping of columns; or a NumPy
            array with named fields, or of N rows user, item and perhaps timestamp. Columns: see TYPES.
        ids: identifiers of the catalogue's items in their order; rows of other items are dropped. None: the catalogue
            is the items that occur, in order of first appearance.
        how: filter and split.

    Raises:
        UserError: no table, a column is missing or of the wrong kind, an unknown protocol, or no row is left.
    """
    raw = _as_table(interactions)
    known([how.protocol] if how.protocol else [], division.PROTOCOLS, "protocol")
    table = _cast_columns(raw)
    names = None if ids is None else list(map(str, ids))
    missing = 0 if names is None else table["item"].null_count
    covered = table if names is None else _keep_covered(table, names)
    result = _split_rows(covered, how)
    rows, items = result.table, result.items
    if names is not None:
        place = pc.index_in(pa.array(items, pa.string()), value_set=pa.array(names, pa.string())).to_numpy()
        numbers = pa.array(place[rows["item_id"].to_numpy()], pa.int32())
        rows, items = rows.set_column(rows.column_names.index("item_id"), "item_id", numbers), np.array(names, object)
    dropped = Counter({"item without a vector": len(table) - len(covered) - missing, "missing_value": missing})
    return replace(
        result,
        table=rows,
        users=_as_typed(result.users, raw["user"].type),
        items=_as_typed(items, raw["item"].type),
        dropped={reason: n for reason, n in (dropped + Counter(result.dropped)).items() if n},
    )


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
            shape = interactions.shape
            raise UserError(f"interactions: an array of shape {shape}; give [N, 2], user and item, or [N, 3], and time")
        interactions = dict(zip(("user", "item", "timestamp"), interactions.T, strict=False))
    try:
        table = interactions if isinstance(interactions, pa.Table) else pa.table(interactions)
    except (TypeError, ValueError, pa.ArrowException) as e:
        kind = type(interactions).__name__
        raise UserError(
            f"interactions: {kind} is no table ({' '.join(str(e).split())}); give columns user, item and, if known, "
            "timestamp"
        ) from None
    for column in ("user", "item"):
        if column not in table.column_names:
            raise UserError(f"interactions: no column '{column}'{nearest(column, table.column_names)}; rename it")
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
            if name in ("user", "item", "split") and pa.types.is_floating(column.type):
                column = pc.cast(column, pa.int64())  # integers with gaps, as pandas holds them
            columns[name] = pc.cast(column, TYPES[name])
        except pa.ArrowException as e:
            raise UserError(
                f"interactions: column '{name}' is {column.type}, and not all of it fits {TYPES[name]} "
                f"({' '.join(str(e).split())}); correct it"
            ) from None
    return pa.table(columns)


def _split_rows(table: pa.Table, how: Splitting) -> Numbered:
    own = how.protocol is None and "split" in table.column_names
    if own and max(how.user_core, how.item_core) > 1:
        raise UserError("user_core, item_core: the column 'split' is kept; give a protocol to replace it")
    # the split is the stage's own, by the same queries
    chosen = Division(how.protocol or MMREC, seed_for("split", how.seed), how.cold_share, how.most_train)
    missing = {"rating": "NULL::FLOAT AS rating", "timestamp": "NULL::BIGINT AS timestamp"}
    columns = ["user", "item", *(c if c in table.column_names else missing[c] for c in missing)]
    with (
        tempfile.TemporaryDirectory() as folder,
        build.create_database(Path(folder) / "scratch", Interactions().memory_limit) as db,
    ):
        db.register("given", table)
        if own:
            parts = build.import_split(db, f"SELECT {', '.join(columns)}, split FROM given")
        else:
            parts = build.divide_ratings(
                db, f"SELECT {', '.join(columns)} FROM given", how.user_core, how.item_core, chosen
            )
        users, items, rows = (pa.concat_tables(part) for part in (parts.users, parts.item_ids, parts.interactions))
    protocol = GIVEN if own else parts.division or chosen.protocol
    return Numbered(rows, users["user"].to_numpy(), items["asin"].to_numpy(), protocol, parts.drops)


def _as_typed(names: np.ndarray, kind: pa.DataType) -> np.ndarray:
    whole = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    try:
        return pc.cast(pa.array(names, pa.string()), pa.int64()).to_numpy() if whole else names
    except pa.ArrowInvalid:  # the catalogue has other identifiers than numbers
        return names
