"""Content of an export, read from a dataset's stages or from a release."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.sources.base import is_web

SPLITS = ("train", "valid", "test")
FIELDS = ("item_id", "asin", "title", "brand", "categories", "description")


@dataclass(frozen=True)
class ExportContent:
    """Tables in item order and user order; None if the origin lacks them."""

    name: str
    items: pa.Table  # FIELDS of schema ITEMS, and image_url, public or empty; I rows
    features: Mapping[str, pa.Table]  # feature set -> schema features(F), I rows
    users: pa.Table | None = None
    interactions: pa.Table | None = None
    # schema semantic_ids(L), I rows, of the only feature set; for formats that need them
    codes: pa.Table | None = None
    notes: Sequence[str] = ()  # sentences for the README: which items are left out or in another order
    # feature set -> items whose zero row was replaced by a random one
    filled: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def matrix(self, name: str) -> np.ndarray:
        return io.matrix(self.features[name]["vector"])

    def save_vectors(self, folder: Path) -> None:
        for name in self.features:
            io.write_npy(folder / f"{name}.npy", self.matrix(name))

    def interactions_of(self, number: int) -> pa.Table:
        assert self.interactions is not None
        return self.interactions.filter(pc.equal(self.interactions["split"], number)).drop_columns(["split"])

    def clock(self) -> str:
        return "none" if self.interactions is None else schemas.read_clock(self.interactions)

    def has_values(self, column: str) -> bool:
        return self.interactions is not None and self.interactions[column].null_count < len(self.interactions)


def of_dataset(layout: Layout, features: list[str], coded: bool = False) -> ExportContent:
    """Read all feature sets of a dataset, or the named ones; if `coded`, the one with semantic IDs."""
    items, codes = io.read_table(layout.items, schemas.ITEMS), None
    has_codes = [name for name in layout.feature_sets() if layout.codes(name).exists()] if coded else None
    names = _choose_sets(features, layout.feature_sets(), has_codes, layout.dataset)
    if coded:
        codes = io.read_codes(layout.codes(names[0]))
        if not codes["asin"].equals(items["asin"]):
            raise UserError(f"{layout.codes(names[0])}: of other items; run `alignrec semantic_ids {layout.dataset}`")
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
    manifest, has_codes = release.manifest, release.manifest.sets_with("semantic_ids") if coded else None
    names = _choose_sets(features, release.feature_sets, has_codes, manifest.dataset)
    tables = {str(f.table): f.path for f in manifest.files}
    users = tables.get("users") or tables.get("user_embeddings")
    return ExportContent(
        name=manifest.dataset,
        items=io.read_table(folder / "items.parquet", schemas.RELEASED_ITEMS, [*FIELDS, "image_url"]),
        features={name: release.features(name) for name in names},
        users=io.read_table(folder / users, schemas.USERS, schemas.USERS.names) if users else None,
        interactions=release.interactions if "interactions" in tables else None,
        codes=release.semantic_ids(names[0]) if coded else None,
    )


def _choose_sets(wanted: list[str], available: list[str], has_codes: Container[str] | None, dataset: str) -> list[str]:
    if unknown := [n for n in wanted if n not in available]:
        raise UserError(f"no feature set '{unknown[0]}'; there are {', '.join(available) or 'none'}")
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
        raise UserError(f"several feature sets have semantic IDs; choose one with --features: {', '.join(names)}")
    return names


def write_tsv(path: Path, table: pa.Table, header: list[str] | None, delimiter: str = "\t") -> None:
    options = csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="needed")
    with path.open("wb") as f:
        if header is not None:
            f.write((delimiter.join(header) + "\n").encode())
        csv.write_csv(table, f, options)


def write_mappings(folder: Path, items: pa.Table, users: pa.Table | None, delimiter: str = "\t") -> None:
    ending = "tsv" if delimiter == "\t" else "csv"
    write_tsv(folder / f"items.{ending}", items.select(["item_id", "asin"]), ["item_id", "asin"], delimiter)
    if users is not None:
        write_tsv(folder / f"users.{ending}", users, ["user_id", "user"], delimiter)
