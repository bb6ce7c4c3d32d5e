"""Content of an export: I items of a dataset or release, N exported rows, F width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pyarrow import csv

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import catalogue
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.sources.base import is_web
from alignrec.pipeline.vectors import mapping_files

SPLITS = ("train", "valid", "test")
FIELDS = ("item_id", "asin", "title", "brand", "categories", "description")


@dataclass(frozen=True)
class ExportContent:
    """Tables in item order and user order; None if the dataset or release does not have them."""

    name: str
    items: pa.Table  # FIELDS of schema ITEMS, and image_url, public or empty; I rows
    features: Mapping[str, pa.Table]  # feature set -> schema features(F), I rows
    users: pa.Table | None = None
    interactions: pa.Table | None = None
    notes: Sequence[
        str
    ] = ()  # sentences for the README: which items are left out or in another order
    # feature set -> items whose zero row was replaced by a random one
    filled: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def matrix(self, name: str) -> np.ndarray:
        return io.matrix(self.features[name]["vector"])

    @property
    def first_set(self) -> str:
        """Name of the first feature set, for examples in a README."""
        return next(iter(self.features), "features")

    def save_vectors(self, folder: Path) -> None:
        for name in self.features:
            io.write_npy(folder / f"{name}.npy", self.matrix(name))

    def interactions_of(self, number: int) -> pa.Table:
        assert self.interactions is not None
        return self.interactions.filter(pc.equal(self.interactions["split"], number)).drop_columns(
            ["split"]
        )

    def clock(self) -> str:
        return "none" if self.interactions is None else schemas.read_clock(self.interactions)

    def has_values(self, column: str) -> bool:
        return self.interactions is not None and self.interactions[column].null_count < len(
            self.interactions
        )


def read_content(layout: Layout, features: list[str], whole: bool = False) -> ExportContent:
    """Read all or the named feature sets of a dataset; if `whole`, for all of its items.

    Users and interactions may be missing, as in an unpacked release.
    """
    items = io.read_table(layout.items, schemas.ITEMS)
    has_further = whole and layout.further_items.is_file()
    if has_further:
        items = pa.concat_tables([items, io.read_table(layout.further_items, schemas.ITEMS)])
    available = layout.feature_sets()
    left_out: list[str] = []
    if has_further and not features:
        left_out = [name for name in available if catalogue.lacks_further(layout, name)]
        available = [name for name in available if name not in left_out]
    names = _choose_sets(features, available)
    if has_further:
        catalogue.refuse_uncovered(layout, names, "--features")
    has_interactions = layout.interactions.is_file()
    urls = [next(filter(is_web, urls or []), "") for urls in items["image_urls"].to_pylist()]
    return ExportContent(
        name=layout.dataset,
        items=items.select(FIELDS).append_column("image_url", pa.array(urls, pa.string())),
        features={name: _read_features(layout, name, has_further) for name in names},
        users=io.read_table(layout.users, schemas.USERS) if has_interactions else None,
        interactions=(
            io.read_table(layout.interactions, schemas.INTERACTIONS) if has_interactions else None
        ),
        notes=_note_left_out(left_out),
    )


def _note_left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"Sets left out, as they lack the items that items.all adds: {', '.join(names)}."]


def _read_features(layout: Layout, name: str, whole: bool) -> pa.Table:
    table = io.read_features(layout.features(name))
    further = FeatureSet.of(layout, name).further() if whole else None
    if further is None:
        return table
    parts = [further.read(number) for number in range(len(further.shards))]
    return pa.concat_tables([table, *parts], promote_options="default")


def _choose_sets(names: list[str], available: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in available]:
        listed = ", ".join(available) or "none"
        raise UserError(f"no feature set '{unknown[0]}'; there are {listed}")
    return names or available


def arrange_rows(content: ExportContent, order: Path | None) -> ExportContent:
    """Follow a mapping file's order, if given, and fill zero rows.

    Raises UserError if no item is left, or a set is all zeros.
    """
    if order is not None:
        content = _follow_order(content, order)
    # other tools divide by a vector's norm, so zero rows would become NaN
    features: dict[str, pa.Table] = {}
    filled: dict[str, list[int]] = {}
    for name, table in content.features.items():
        is_zero = (content.matrix(name) == 0).all(axis=1)
        features[name] = _fill_zeros(name, table, is_zero)
        filled[name] = np.flatnonzero(is_zero).tolist()
    return replace(content, features=features, filled=filled)


def _follow_order(content: ExportContent, order: Path) -> ExportContent:
    available = content.items["asin"].to_pylist()
    row_of = {asin: row for row, asin in enumerate(available)}
    asins = mapping_files.read_order(order, available)
    rows = np.array([row_of.get(asin, -1) for asin in asins])

    present = int((rows >= 0).sum())
    lacking = len(rows) - present
    left_out = len(available) - present
    notes = [f"Items are numbered as in {order.name}, not as in the dataset."]
    if lacking:
        notes.append(f"Items of it that the dataset lacks, and that have no content: {lacking:,}.")
    if left_out:
        notes.append(f"Items of the dataset left out, as it does not name them: {left_out:,}.")
    return _take_items(content, rows, asins, notes)


def _fill_zeros(name: str, table: pa.Table, is_zero: np.ndarray) -> pa.Table:
    if not is_zero.any():
        return table
    if is_zero.all():
        raise UserError(
            f"feature set '{name}' holds nothing but zeros; choose others with --features"
        )

    # random, because in a set that is not centred the mean, or a mixture of rows, would be near
    # many rows
    x = io.matrix(table["vector"]).copy()
    rows = len(x) - int(is_zero.sum())
    mean = x.sum(axis=0, dtype=np.float64) / rows
    mean_square = np.einsum("if,if->f", x, x, dtype=np.float64) / rows
    deviation = np.sqrt(np.maximum(mean_square - mean**2, 0))

    # seeded by the item, so that rows do not depend on the order of items
    asins = table["asin"].filter(pa.array(is_zero)).to_pylist()
    generators = [np.random.default_rng(seed_for("export", name, asin)) for asin in asins]
    noise = np.array([generator.standard_normal(x.shape[1]) for generator in generators])
    limit = np.finfo(np.float32).max
    x[is_zero] = np.clip(mean + deviation * noise, -limit, limit)
    return io.set_column(table, "vector", io.vectors(x))


def _take_items(
    content: ExportContent, rows: np.ndarray, asins: Sequence[str], notes: list[str]
) -> ExportContent:
    """Select `rows`, int64 [N], of the content; -1 stands for an item without content."""
    blank_row = len(content.items)
    index = pa.array(np.where(rows < 0, blank_row, rows))
    item_ids = pa.array(range(len(rows)), pa.int32())
    names = pa.array(asins, pa.string())

    def take_rows(table: pa.Table) -> pa.Table:
        blank = pa.Table.from_pylist([_blank_row(table.schema)], table.schema.remove_metadata())
        table = pa.concat_tables([table.replace_schema_metadata(), blank]).take(index)
        return io.set_column(io.set_column(table, "item_id", item_ids), "asin", names)

    interactions = content.interactions
    if interactions is not None:
        before = len(interactions)
        interactions = _renumber_items(interactions, rows, len(content.items))
        if lost := before - len(interactions):
            notes = [*notes, f"Interactions left out with their items: {lost:,}."]
    return replace(
        content,
        items=take_rows(content.items),
        features={name: take_rows(table) for name, table in content.features.items()},
        interactions=interactions,
        notes=[*content.notes, *notes],
    )


def _blank_row(schema: pa.Schema) -> dict[str, object]:
    """Return the row of an item without content."""
    return {field.name: _blank_value(field.type) for field in schema}


def _blank_value(kind: pa.DataType) -> object:
    if pa.types.is_fixed_size_list(kind):
        return [0.0] * kind.list_size
    if pa.types.is_list(kind):
        return []
    if pa.types.is_string(kind):
        return ""
    return False if pa.types.is_boolean(kind) else 0


def _renumber_items(interactions: pa.Table, rows: np.ndarray, n_items: int) -> pa.Table:
    """Number the items by `rows`, and drop interactions with others."""
    is_present = rows >= 0
    numbers = np.full(n_items, -1, np.int32)
    numbers[rows[is_present]] = np.flatnonzero(is_present)
    item_ids = pa.array(numbers[interactions["item_id"].to_numpy()])
    renumbered = io.set_column(interactions, "item_id", item_ids)
    return renumbered.filter(pc.greater_equal(item_ids, 0))


def write_tsv(path: Path, table: pa.Table, header: list[str] | None, delimiter: str = "\t") -> None:
    options = csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="needed")
    with path.open("wb") as f:
        if header is not None:
            f.write((delimiter.join(header) + "\n").encode())
        csv.write_csv(table, f, options)


def write_mappings(
    folder: Path, items: pa.Table, users: pa.Table | None, delimiter: str = "\t"
) -> None:
    ending = "tsv" if delimiter == "\t" else "csv"
    write_tsv(
        folder / f"items.{ending}",
        items.select(["item_id", "asin"]),
        ["item_id", "asin"],
        delimiter,
    )
    if users is not None:
        write_tsv(folder / f"users.{ending}", users, ["user_id", "user"], delimiter)


def write_yaml(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
