"""Rows of an export: zero rows, and the order of a mapping file (I items, N exported rows, F width)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.export.content import ExportContent
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.items import identifiers


def arrange_rows(content: ExportContent, order: Path | None) -> ExportContent:
    """Follow a mapping file's order, if given, and fill zero rows, or drop them if there are semantic IDs.

    Raises UserError if no item is left, a set is all zeros, or items of the mapping file would be dropped.
    """
    if order is not None:
        content = _reorder_items(content, identifiers.read_order(order, content.items["asin"].to_pylist()), order.name)
    # other tools divide by a vector's length, so zero rows become NaN
    zero = {name: (content.matrix(name) == 0).all(axis=1) for name in content.features}
    if content.codes is None:
        features = {name: _fill_zeros(name, table, zero[name]) for name, table in content.features.items()}
        return replace(content, features=features, filled={n: np.flatnonzero(z).tolist() for n, z in zero.items()})
    empty = np.any([content.codes["codes"].is_null().to_numpy(), *zero.values()], axis=0)
    if not empty.any():
        return content
    if order is not None:
        raise UserError("items without a semantic ID are left out, which leaves gaps in the given order; omit --order")
    if empty.all():
        raise UserError("no item has a semantic ID and a vector; choose another feature set with --features")
    asins = [asin for asin, left_out in zip(content.items["asin"].to_pylist(), empty, strict=True) if not left_out]
    note = f"Items left out for a row of zeros: {int(empty.sum()):,}; the others are renumbered."
    return _take_items(content, np.flatnonzero(~empty), asins, [note])


def _reorder_items(content: ExportContent, asins: Sequence[str], where: str) -> ExportContent:
    """Return the N items of mapping file `where`, with zero rows for those that the dataset lacks."""
    own = {asin: i for i, asin in enumerate(content.items["asin"].to_pylist())}
    rows = np.array([own.get(asin, -1) for asin in asins])
    lacking, left_out = int((rows < 0).sum()), len(own) - int((rows >= 0).sum())
    notes = [f"Items are numbered as in {where}, not as in the dataset."]
    notes += [f"Items of it that the dataset lacks, and that have no content: {lacking:,}."] if lacking else []
    notes += [f"Items of the dataset left out, as it does not name them: {left_out:,}."] if left_out else []
    return _take_items(content, rows, asins, notes)


def _fill_zeros(name: str, table: pa.Table, zero: np.ndarray) -> pa.Table:
    if not zero.any():
        return table
    if zero.all():
        raise UserError(f"feature set '{name}' holds nothing but zeros; choose others with --features")
    x = io.matrix(table["vector"]).copy()
    # Drawn, because the mean itself or a mixture of rows would be near many rows of a set that is not centred.
    rows = len(x) - int(zero.sum())
    mean = x.sum(axis=0, dtype=np.float64) / rows
    squares = np.einsum("if,if->f", x, x, dtype=np.float64) / rows
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    limit = np.finfo(np.float32).max
    # seeded by the item, so that rows do not depend on the order of items
    seeds = [seed_for("export", name, asin) for asin in table["asin"].filter(pa.array(zero)).to_pylist()]
    noise = np.array([np.random.default_rng(seed).standard_normal(x.shape[1]) for seed in seeds])
    x[zero] = np.clip(mean + spread * noise, -limit, limit)
    return table.set_column(table.column_names.index("vector"), table.schema.field("vector"), io.vectors(x))


def _take_items(content: ExportContent, rows: np.ndarray, asins: Sequence[str], notes: list[str]) -> ExportContent:
    """Return the content with rows `rows`, int64 [N], where -1 is an item without content."""
    index = pa.array(np.where(rows < 0, len(content.items), rows))
    ids = {"item_id": pa.array(range(len(rows)), pa.int32()), "asin": pa.array(asins, pa.string())}

    def take_rows(table: pa.Table) -> pa.Table:
        table = pa.concat_tables([table.replace_schema_metadata(), _blank_row(table.schema)]).take(index)
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
        kept = interactions.filter(pc.greater_equal(interactions["item_id"], 0))
        if lost := len(interactions) - len(kept):
            notes = [*notes, f"Interactions left out with their items: {lost:,}."]
        interactions = kept
    return replace(
        content,
        items=take_rows(content.items),
        features={name: take_rows(table) for name, table in content.features.items()},
        interactions=interactions,
        codes=None if content.codes is None else take_rows(content.codes),
        notes=[*content.notes, *notes],
    )


def _blank_row(schema: pa.Schema) -> pa.Table:
    row: dict[str, object] = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        if pa.types.is_fixed_size_list(kind):
            row[name] = [0.0] * kind.list_size
        elif pa.types.is_list(kind):
            row[name] = None if name == "codes" else []
        else:
            row[name] = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
    return pa.Table.from_pylist([row], schema.remove_metadata())
