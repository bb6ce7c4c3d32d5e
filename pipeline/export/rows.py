"""Other rows than the dataset's: no zero rows, none without a wanted semantic ID, and the order of a mapping file.

An item without content has a row of zeros. Others divide by its length: the published AlignRec ends in NaN, and in
MMRec's FREEDOM the item is everyone's neighbour. So no export hands it on.

I items, N rows of the export, F feature width.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.errors import UserError
from pipeline.export.content import ExportContent
from pipeline.items import identifiers
from pipeline.seeds import seed_for

ZERO_ROWS = ("drawn", "drop")
"""what becomes of an item with a row of zeros: numbers drawn from the spread of the set's other rows, or left out"""


def arranged(content: ExportContent, zero_rows: str, order: Path | None) -> ExportContent:
    """Return the content without zero rows, and in the order of a mapping file if there is one; or UserError."""
    if order is None:
        return without_zero_rows(content, zero_rows)
    asins = identifiers.order(order, content.items["asin"].to_pylist())
    return without_zero_rows(reorder(content, asins, order.name), zero_rows, fixed=True)


def without_zero_rows(content: ExportContent, how: str, fixed: bool = False) -> ExportContent:
    """Return the content without rows of zeros; `filled` or `notes` say what was done, one of ZERO_ROWS.

    Items without a semantic ID are dropped where the content has IDs. UserError if `how` is another, no item would be
    left, a set is all zeros, or rows are `fixed` and one would go.
    """
    if how not in ZERO_ROWS:
        raise UserError(f"no way '{how}' with zero rows; there are {', '.join(ZERO_ROWS)}")
    zero = {name: (content.matrix(name) == 0).all(axis=1) for name in content.features}
    if how == "drawn" and content.codes is None:
        features = {name: _fill(name, table, zero[name]) for name, table in content.features.items()}
        return replace(content, features=features, filled={n: np.flatnonzero(z).tolist() for n, z in zero.items()})
    no_id = np.zeros(len(content.items), bool) if content.codes is None else content.codes["codes"].is_null().to_numpy()
    empty = np.any([no_id, *zero.values()], axis=0)
    if not empty.any():
        return content
    if fixed:
        remedy = "use --zero-rows drawn" if content.codes is None else "omit --order"
        raise UserError(f"items without content are left out, which leaves gaps in the given order; {remedy}")
    if empty.all():
        raise UserError("every item has a row of zeros in one of the feature sets; choose others with --features")
    asins = [asin for asin, left_out in zip(content.items["asin"].to_pylist(), empty, strict=True) if not left_out]
    rest = _take(content, np.flatnonzero(~empty), asins)
    note = f"Items left out for a row of zeros: {int(empty.sum()):,}; the others are renumbered."
    return replace(rest, notes=[*content.notes, note, *_count_lost(content, rest)])


def reorder(content: ExportContent, asins: Sequence[str], where: str) -> ExportContent:
    """Return the content with the rows of a mapping file; an item that we lack has a row of zeros.

    Args:
        asins: identifier of each row of the export, [N].
        where: name of the mapping file, for notes.
    """
    own = {asin: i for i, asin in enumerate(content.items["asin"].to_pylist())}
    rows = np.array([own.get(asin, -1) for asin in asins])
    other = _take(content, rows, asins)
    lacking, left_out = int((rows < 0).sum()), len(own) - int((rows >= 0).sum())
    notes = [f"Items are numbered as in {where}, not as in the dataset."]
    notes += [f"Items of it that the dataset lacks, and that have no content: {lacking:,}."] if lacking else []
    notes += [f"Items of the dataset left out, as it does not name them: {left_out:,}."] if left_out else []
    return replace(other, notes=[*content.notes, *notes, *_count_lost(content, other)])


def _fill(name: str, table: pa.Table, zero: np.ndarray) -> pa.Table:
    if not zero.any():
        return table
    if zero.all():
        raise UserError(f"feature set '{name}' holds nothing but zeros; choose others with --features")
    x = io.matrix(table["vector"]).copy()
    x[zero] = _draw(x, [seed_for("export", name, asin) for asin in table["asin"].filter(pa.array(zero)).to_pylist()])
    return table.set_column(table.column_names.index("vector"), table.schema.field("vector"), io.vectors(x))


def _draw(x: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Return a row a seed, each number normal with mean and standard deviation of its column, float64 [seeds, F].

    The mean itself, or a mixture of rows, is near to many rows of a set that is not centred; a row borrowed from
    another item is as near as a double. Independent columns point where no item does: docs/exports.md has figures.

    Args:
        x: float32 [I, F]; rows of zeros do not count, and there are as many as seeds.
        seeds: of the items' names, so that an item has the same row in every order.
    """
    rows = len(x) - len(seeds)
    mean = x.sum(axis=0, dtype=np.float64) / rows
    squares = np.einsum("if,if->f", x, x, dtype=np.float64) / rows
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    limit = np.finfo(np.float32).max
    noise = np.array([np.random.default_rng(seed).standard_normal(x.shape[1]) for seed in seeds])
    return np.clip(mean + spread * noise, -limit, limit)


def _take(content: ExportContent, rows: np.ndarray, asins: Sequence[str]) -> ExportContent:
    """Return the content with other items: row of each in `content`, int64 [N], -1 for one without content."""
    index = pa.array(np.where(rows < 0, len(content.items), rows))
    ids = {"item_id": pa.array(range(len(rows)), pa.int32()), "asin": pa.array(asins, pa.string())}

    def take(table: pa.Table) -> pa.Table:
        table = pa.concat_tables([table.replace_schema_metadata(), _blank(table.schema)]).take(index)
        for name, values in ids.items():
            table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
        return table

    interactions = content.interactions
    if interactions is not None:
        number = np.full(len(content.items), -1, np.int32)
        number[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        renumbered = pa.array(number[interactions["item_id"].to_numpy()])
        at = interactions.column_names.index("item_id")
        interactions = interactions.set_column(at, interactions.schema.field(at), renumbered)
        interactions = interactions.filter(pc.greater_equal(interactions["item_id"], 0))
    features = {name: take(table) for name, table in content.features.items()}
    codes = None if content.codes is None else take(content.codes)
    return replace(content, items=take(content.items), features=features, interactions=interactions, codes=codes)


def _blank(schema: pa.Schema) -> pa.Table:
    row: dict[str, object] = {}
    for field in schema:
        if field.name == "codes":
            row[field.name] = None
        elif pa.types.is_fixed_size_list(field.type):
            row[field.name] = [0.0] * field.type.list_size
        elif pa.types.is_list(field.type):
            row[field.name] = []
        else:
            row[field.name] = "" if pa.types.is_string(field.type) else False if pa.types.is_boolean(field.type) else 0
    return pa.Table.from_pylist([row], schema.remove_metadata())


def _count_lost(before: ExportContent, after: ExportContent) -> list[str]:
    if before.interactions is None or after.interactions is None:
        return []
    lost = len(before.interactions) - len(after.interactions)
    return [f"Interactions left out with their items: {lost:,}."] if lost else []
