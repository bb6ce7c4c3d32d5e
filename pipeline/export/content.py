"""The content of an export, read from a dataset's stages or from a release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.export.codes import Codes, Settled
from pipeline.export.codes import of_dataset as of_layout
from pipeline.export.codes import of_release as of_folder
from pipeline.layout import Layout
from pipeline.release.read import Release
from pipeline.sources.product import is_web

SPLITS = ("train", "valid", "test")
FIELDS = ("item_id", "asin", "title", "brand", "categories", "description")


@dataclass(frozen=True)
class ExportContent:
    """Tables in item order and user order; None where the origin has none."""

    name: str
    items: pa.Table
    """FIELDS of schema ITEMS, and image_url, public or empty; I rows"""
    features: Mapping[str, pa.Table]
    """feature set -> schema features(F), I rows"""
    users: pa.Table | None = None
    interactions: pa.Table | None = None
    codes: Codes | None = None
    """semantic IDs of the one feature set, for the formats that need them"""
    notes: Sequence[str] = ()
    """sentences for the README: which items are left out or in another order"""
    filled: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """feature set -> items whose row of zeros was replaced by a drawn one"""

    def matrix(self, name: str) -> np.ndarray:
        return io.matrix(self.features[name]["vector"])

    def save_vectors(self, folder: Path) -> None:
        for name in self.features:
            np.save(folder / f"{name}.npy", self.matrix(name), allow_pickle=False)

    @cached_property
    def settled(self) -> Settled:
        assert self.codes is not None
        return self.codes.settled(self.matrix(self.codes.facts.features))

    def split(self, number: int) -> pa.Table:
        assert self.interactions is not None
        return self.interactions.filter(pc.equal(self.interactions["split"], number)).drop_columns(["split"])

    def clock(self) -> str:
        return "none" if self.interactions is None else schemas.clock(self.interactions)

    def known(self, column: str) -> bool:
        return self.interactions is not None and self.interactions[column].null_count < len(self.interactions)


def of_dataset(layout: Layout, features: list[str], coded: bool = False, method: str | None = None) -> ExportContent:
    """Read the outputs of a dataset's stages: all feature sets or the named ones.

    If `coded`, only one set, and its semantic IDs by `method` or the first.
    """
    codes = of_layout(layout, _chosen(features, layout.feature_sets()) if features else [], method) if coded else None
    features = [codes.facts.features] if codes else features
    ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    items = io.read_table(layout.items, schemas.ITEMS) if layout.items.exists() else _without_texts(ids)
    urls = [next(filter(is_web, urls or []), "") for urls in items["image_urls"].to_pylist()]
    return ExportContent(
        name=layout.dataset,
        items=items.select(FIELDS).append_column("image_url", pa.array(urls, pa.string())),
        features={n: io.read_features(layout.features(n)) for n in _chosen(features, layout.feature_sets())},
        users=io.read_table(layout.users, schemas.USERS),
        interactions=io.read_table(layout.interactions, schemas.INTERACTIONS),
        codes=codes,
    )


def of_release(folder: Path, features: list[str], coded: bool = False, method: str | None = None) -> ExportContent:
    release = Release(folder).refuse_without("items").verified()
    codes = of_folder(folder, _chosen(features, release.feature_sets) if features else [], method) if coded else None
    features = [codes.facts.features] if codes else features
    manifest, available = release.manifest, release.feature_sets
    tables = {str(f.table): folder / f.path for f in manifest.files}
    users = tables.get("users") or tables.get("user_embeddings")
    interactions = tables.get("interactions")
    return ExportContent(
        name=manifest.dataset,
        items=io.read_table(folder / "items.parquet", schemas.RELEASED_ITEMS, [*FIELDS, "image_url"]),
        features={n: io.read_features(folder / "features" / n) for n in _chosen(features, available)},
        users=io.read_table(users, schemas.USERS, schemas.USERS.names) if users else None,
        interactions=io.read_table(interactions, schemas.INTERACTIONS) if interactions else None,
        codes=codes,
    )


def _chosen(wanted: list[str], available: list[str]) -> list[str]:
    if unknown := [n for n in wanted if n not in available]:
        raise UserError(f"no feature set '{unknown[0]}'; there are {', '.join(available) or 'none'}")
    return wanted or available


def _without_texts(ids: pa.Table) -> pa.Table:
    blank = pa.array([""] * len(ids), pa.string())
    nothing = pa.array([[]] * len(ids), pa.list_(pa.string()))
    texts = {"title": blank, "brand": blank, "categories": nothing, "description": blank, "image_urls": nothing}
    return pa.table({"item_id": ids["item_id"], "asin": ids["asin"], **texts})
