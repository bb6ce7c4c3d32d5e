"""Content of an export, read from a dataset's stages or a release: I items, N exported rows, F width."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.sources.base import is_web
from alignrec.pipeline.vectors import identifiers

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
    # schema semantic_ids(L), I rows, of the only feature set; for formats that need them
    codes: pa.Table | None = None
    notes: Sequence[
        str
    ] = ()  # sentences for the README: which items are left out or in another order
    # feature set -> items whose zero row was replaced by a random one
    filled: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def matrix(self, name: str) -> np.ndarray:
        return io.matrix(self.features[name]["vector"])

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


def of_dataset(layout: Layout, features: list[str], coded: bool = False) -> ExportContent:
    """Read all feature sets of a dataset, or the named ones; if `coded`, the one with semantic IDs."""
    items, codes = io.read_table(layout.items, schemas.ITEMS), None
    has_codes = (
        [name for name in layout.feature_sets() if layout.codes(name).exists()] if coded else None
    )
    names = _choose_sets(features, layout.feature_sets(), has_codes, layout.dataset)
    if coded:
        codes = io.read_codes(layout.codes(names[0]))
        if not codes["asin"].equals(items["asin"]):
            raise UserError(
                f"{layout.codes(names[0])}: of other items; run `alignrec semantic_ids {layout.dataset}`"
            )
    urls = [next(filter(is_web, urls or []), "") for urls in items["image_urls"].to_pylist()]
    return ExportContent(
        name=layout.dataset,
        items=items.select(FIELDS).append_column("image_url", pa.array(urls, pa.string())),
        features={name: io.read_features(layout.features(name)) for name in names},
        users=io.read_table(layout.users, schemas.USERS),
        interactions=io.read_table(layout.interactions, schemas.INTERACTIONS),
        codes=codes,
    )


def of_release(folder: Path, features: list[str], coded: bool = False) -> ExportContent:
    release = Release(folder).refuse_without("items").verify()
    manifest, has_codes = (
        release.manifest,
        release.manifest.sets_with("semantic_ids") if coded else None,
    )
    names = _choose_sets(features, release.feature_sets, has_codes, manifest.dataset)
    tables = {str(f.table): f.path for f in manifest.files}
    users = tables.get("users") or tables.get("user_embeddings")
    return ExportContent(
        name=manifest.dataset,
        items=io.read_table(
            folder / "items.parquet", schemas.RELEASED_ITEMS, [*FIELDS, "image_url"]
        ),
        features={name: release.features(name) for name in names},
        users=io.read_table(folder / users, schemas.USERS, schemas.USERS.names) if users else None,
        interactions=release.interactions if "interactions" in tables else None,
        codes=release.semantic_ids(names[0]) if coded else None,
    )


def _choose_sets(
    wanted: list[str], available: list[str], has_codes: Container[str] | None, dataset: str
) -> list[str]:
    if unknown := [n for n in wanted if n not in available]:
        raise UserError(
            f"no feature set '{unknown[0]}'; there are {', '.join(available) or 'none'}"
        )
    if has_codes is None:
        return wanted or available
    # a format with semantic IDs takes exactly one set
    names = [name for name in wanted or available if name in has_codes]
    if not names:
        raise UserError(
            f"{dataset}: no semantic IDs of these feature sets; name one under semantic_ids.features and run "
            f"`alignrec semantic_ids {dataset}`"
        )
    if len(names) > 1:
        raise UserError(
            f"several feature sets have semantic IDs; choose one with --features: {', '.join(names)}"
        )
    return names


def arrange_rows(content: ExportContent, order: Path | None) -> ExportContent:
    """Follow a mapping file's order, if given, and fill zero rows, or drop them if there are semantic IDs.

    Raises UserError if no item is left, a set is all zeros, or items of the mapping file would be dropped.
    """
    own = content.items["asin"].to_pylist()
    if order is not None:
        asins, places = identifiers.read_order(order, own), {asin: i for i, asin in enumerate(own)}
        rows = np.array([places.get(asin, -1) for asin in asins])
        lacking, left_out = int((rows < 0).sum()), len(own) - int((rows >= 0).sum())
        notes = [f"Items are numbered as in {order.name}, not as in the dataset."]
        notes += (
            [f"Items of it that the dataset lacks, and that have no content: {lacking:,}."]
            if lacking
            else []
        )
        notes += (
            [f"Items of the dataset left out, as it does not name them: {left_out:,}."]
            if left_out
            else []
        )
        content = _take_items(content, rows, asins, notes)
    # other tools divide by a vector's norm, so zero rows would become NaN
    zero = {name: (content.matrix(name) == 0).all(axis=1) for name in content.features}
    if content.codes is None:
        features = {
            name: _fill_zeros(name, table, zero[name]) for name, table in content.features.items()
        }
        return replace(
            content,
            features=features,
            filled={n: np.flatnonzero(z).tolist() for n, z in zero.items()},
        )
    empty = np.any([content.codes["codes"].is_null().to_numpy(), *zero.values()], axis=0)
    if not empty.any():
        return content
    if order is not None:
        raise UserError(
            "items without a semantic ID are left out, which leaves gaps in the given order; omit --order"
        )
    if empty.all():
        raise UserError(
            "no item has a semantic ID and a vector; choose another feature set with --features"
        )
    asins = [asin for asin, left_out in zip(own, empty, strict=True) if not left_out]
    note = f"Items left out for a row of zeros: {int(empty.sum()):,}; the others are renumbered."
    return _take_items(content, np.flatnonzero(~empty), asins, [note])


def _fill_zeros(name: str, table: pa.Table, zero: np.ndarray) -> pa.Table:
    if not zero.any():
        return table
    if zero.all():
        raise UserError(
            f"feature set '{name}' holds nothing but zeros; choose others with --features"
        )
    x = io.matrix(table["vector"]).copy()
    # Random, because in a set that is not centred the mean, or a mixture of rows, would be near many rows.
    rows = len(x) - int(zero.sum())
    mean = x.sum(axis=0, dtype=np.float64) / rows
    squares = np.einsum("if,if->f", x, x, dtype=np.float64) / rows
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    limit = np.finfo(np.float32).max
    # seeded by the item, so that rows do not depend on the order of items
    seeds = [
        seed_for("export", name, asin) for asin in table["asin"].filter(pa.array(zero)).to_pylist()
    ]
    noise = np.array([np.random.default_rng(seed).standard_normal(x.shape[1]) for seed in seeds])
    x[zero] = np.clip(mean + spread * noise, -limit, limit)
    return table.set_column(
        table.column_names.index("vector"), table.schema.field("vector"), io.vectors(x)
    )


def _take_items(
    content: ExportContent, rows: np.ndarray, asins: Sequence[str], notes: list[str]
) -> ExportContent:
    """Select `rows`, int64 [N], of the content; -1 stands for an item without content."""
    index = pa.array(np.where(rows < 0, len(content.items), rows))
    ids = {"item_id": pa.array(range(len(rows)), pa.int32()), "asin": pa.array(asins, pa.string())}

    def take_rows(table: pa.Table) -> pa.Table:
        row: dict[str, object] = {}  # row of an item without content
        for name, kind in zip(table.schema.names, table.schema.types, strict=True):
            if pa.types.is_fixed_size_list(kind):
                row[name] = [0.0] * kind.list_size
            elif pa.types.is_list(kind):
                row[name] = []
            else:
                row[name] = (
                    "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
                )
        blank = pa.Table.from_pylist([row], table.schema.remove_metadata())
        table = pa.concat_tables([table.replace_schema_metadata(), blank]).take(index)
        for name, values in ids.items():
            table = table.set_column(
                table.column_names.index(name), table.schema.field(name), values
            )
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
