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

import schemas
from pipeline.config.base import known, nearest
from pipeline.errors import UserError
from pipeline.interactions import build, division
from pipeline.interactions.division import MMREC, Division
from pipeline.interactions.params import Interactions
from pipeline.interactions.split import Split
from pipeline.interactions.split import load as load_split
from pipeline.seeds import seed_for
from schemas import COLD_ITEMS, SPARSE

TYPES = {"user": pa.string(), "item": pa.string(), "rating": pa.float32(), "timestamp": pa.int64(), "split": pa.int8()}
"""column -> type; user and item are required"""
PARTS = pa.array(division.PARTS)
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
    raw = _table(interactions)
    known([how.protocol] if how.protocol else [], division.PROTOCOLS, "protocol")
    table = _cast(raw)
    names = None if ids is None else list(map(str, ids))
    covered = table if names is None else _keep_covered(table, names)
    result = _split(covered, how) if how.protocol or "split" not in covered.column_names else _as_given(covered, how)
    if names is not None:
        result = _in_catalogue(result, names)
    missing = 0 if names is None else table["item"].null_count
    dropped = Counter({"item without a vector": len(table) - len(covered) - missing, "missing_value": missing})
    dropped.update(result.dropped)
    return replace(
        result,
        users=_as_typed(result.users, raw["user"].type),
        items=_as_typed(result.items, raw["item"].type),
        dropped={reason: n for reason, n in dropped.items() if n},
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


def _table(interactions: Any) -> pa.Table:
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


def _cast(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        column = table[name]
        try:
            if name == "split" and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = pc.cast(pc.index_in(pc.cast(column, pa.string()), value_set=PARTS), pa.int8())
            if name == "timestamp" and pa.types.is_temporal(column.type):
                column = pc.cast(column, pa.timestamp("s"), safe=False)
            if name in ("user", "item") and pa.types.is_floating(column.type):
                column = pc.cast(column, pa.int64())  # integers with gaps, as pandas holds them
            columns[name] = pc.cast(column, TYPES[name])
        except pa.ArrowException as e:
            raise UserError(
                f"interactions: column '{name}' is {column.type}, and not all of it fits {TYPES[name]} "
                f"({' '.join(str(e).split())}); correct it"
            ) from None
    if "split" in columns:
        row = pc.index(pc.is_in(columns["split"], value_set=pa.array(range(len(PARTS)), pa.int8())), False).as_py()
        if row >= 0:
            raise UserError(
                f"interactions: column 'split', row {row}: {table['split'][row]} is none of train, valid, test"
            )
    return pa.table(columns)


def _split(table: pa.Table, how: Splitting) -> Numbered:
    chosen = Division(how.protocol or MMREC, seed_for("split", how.seed), how.cold_share, how.most_train)
    missing = {c: f"NULL::{t} AS {c}" for c, t in (("rating", "FLOAT"), ("timestamp", "BIGINT"))}
    columns = ["user", "item", *(c if c in table.column_names else missing[c] for c in missing)]
    with (
        tempfile.TemporaryDirectory() as folder,
        build.database(Path(folder) / "scratch", Interactions().memory_limit) as db,
    ):
        db.register("given", table)
        parts = build.split(db, f"SELECT {', '.join(columns)} FROM given", how.user_core, how.item_core, chosen)
        users, items = (pa.concat_tables(rows) for rows in (parts.users, parts.item_ids))
        rows = pa.concat_tables(parts.interactions)
    names = users["user"].to_numpy(), items["asin"].to_numpy()
    return Numbered(rows, *names, parts.division or chosen.protocol, parts.drops)


def _as_given(table: pa.Table, how: Splitting) -> Numbered:
    if max(how.user_core, how.item_core) > 1:
        raise UserError("user_core, item_core: the column 'split' is kept; give a protocol to replace it")
    whole = table.filter(pc.and_(pc.is_valid(table["user"]), pc.is_valid(table["item"])))
    trained = pc.unique(whole["user"].filter(pc.equal(whole["split"], schemas.TRAIN)))
    learned = whole.filter(pc.is_in(whole["user"], value_set=trained))
    if not len(learned):
        raise UserError("interactions: no train rows (split = 0); there is nothing to learn from")
    user, item = (learned[c].combine_chunks().dictionary_encode() for c in ("user", "item"))
    n, there = len(learned), learned.column_names
    optional = {c: learned[c] if c in there else pa.nulls(n, TYPES[c]) for c in ("rating", "timestamp")}
    rows = pa.table({"user_id": user.indices, "item_id": item.indices, **optional, "split": learned["split"]})
    dropped = {"missing_value": len(table) - len(whole), "user_without_train": len(whole) - n}
    return Numbered(rows, user.dictionary.to_numpy(False), item.dictionary.to_numpy(False), GIVEN, dropped)


def _in_catalogue(result: Numbered, names: list[str]) -> Numbered:
    place = pc.index_in(pa.array(result.items, pa.string()), value_set=pa.array(names, pa.string())).to_numpy()
    rows = pa.array(place[result.table["item_id"].to_numpy()], pa.int32())
    column = result.table.column_names.index("item_id")
    return replace(result, table=result.table.set_column(column, "item_id", rows), items=np.array(names, object))


def _as_typed(names: np.ndarray, kind: pa.DataType) -> np.ndarray:
    whole = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    try:
        return pc.cast(pa.array(names, pa.string()), pa.int64()).to_numpy() if whole else names
    except pa.ArrowInvalid:  # the catalogue has other identifiers than numbers
        return names
