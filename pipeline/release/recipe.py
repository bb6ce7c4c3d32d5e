"""How a release or project makes texts of its source's columns, for new items to be read alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.items import PRODUCT_FIELDS
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import ItemColumns, Manifest
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import SOURCES, Reader
from alignrec.schemas import TEXT_FIELDS

TABULAR = "tabular"


@dataclass(frozen=True)
class Recipe:
    """Source of a release or project, columns of its item file, and roles in its texts."""

    kind: str = TABULAR
    columns: ItemColumns | None = None  # None without an item file
    text: tuple[str, ...] = TEXT_FIELDS  # roles that compose the text, in order


def record_columns(source: Source, items: Path) -> ItemColumns:
    """Return the columns of a source's item file; `items` is the item table made of it."""
    filled = {"item"}
    for part in io.read_slices(items, schemas.ITEMS, list(PRODUCT_FIELDS), io.PART):
        filled |= {role for role in PRODUCT_FIELDS if any(part[role].to_pylist())}

    reader: Reader = source.reader()
    roles = {role: column for role, column in reader.item_columns.items() if role in filled}
    return ItemColumns(roles=roles, text=list(reader.appended))


def release_recipe(manifest: Manifest) -> Recipe:
    """Read the recipe of a release, which is untrusted; UserError if its parameters are invalid."""
    maker = manifest.made_by.get("items")
    settings = {key: value for key, value in maker.params.items() if key == "text"} if maker else {}
    items = validate(Items, settings, f"{manifests.MANIFEST_FILE}: made_by.items.params")
    return Recipe(manifest.kind, manifest.columns, tuple(items.text))


def project_recipe(params: Parameters, dataset: str, items: Path) -> Recipe | None:
    """Return the recipe of a project's dataset; None if it is not declared or has no items."""
    if dataset not in params.sources or not items.is_file():
        return None
    source = params.source(dataset)
    columns = record_columns(source, items)
    return Recipe(source.kind, columns, tuple(params[Items].text))


def source_reader(kind: str) -> Reader | None:
    """Return the reader of a built-in source but `tabular`, which may join several fields."""
    if kind == TABULAR or kind not in SOURCES.built_in:
        return None
    # not validated: a release has no raw files
    reader: Reader = SOURCES[kind].model_construct(kind=kind).reader()
    return reader
