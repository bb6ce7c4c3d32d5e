"""Inspect a folder in MMRec's format: the split, texts, mappings and feature files next to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec.commands import own_data
from alignrec.commands.own_data import Given, OwnData
from alignrec.pipeline.dataset.catalogue import measure_catalogue
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names
from alignrec.pipeline.release.manifest import DATASET_NAME
from alignrec.pipeline.sources import inspect
from alignrec.pipeline.sources.inspect import InspectedTable
from alignrec.pipeline.sources.mmrec import COLUMNS, ITEM_NAMES, MmrecSource
from alignrec.pipeline.vectors.base import open_vectors

# MMRec's names of files
ENDING = ".inter"
MAPPINGS = {"item_mapping": "i_id_mapping.csv", "user_mapping": "u_id_mapping.csv"}
FEATURES = "*_feat.npy"
TABLES = (".csv", ".tsv", ".json", ".jsonl")  # endings of tables, also with .gz
NUMBER = "itemID"  # column of an item's number
# role -> column of MMRec's item file
CONTENT = {role: role for role in ("title", "brand", "categories", "description")}
CONTENT["image_urls"] = "imUrl"


def is_mmrec(interactions: Path) -> bool:
    return interactions.is_dir() or ENDING in interactions.suffixes


def read_folder(given: Given) -> OwnData:
    """Inspect MMRec's folder, or the folder of the .inter file that is given."""
    if given.columns:
        raise UserError(
            f"--column {given.columns[0]}: the columns of MMRec's files have fixed names: "
            f"{', '.join(COLUMNS)}"
        )

    inter = find_inter(given.interactions)
    own_data.check_paths([inter])
    alone = MmrecSource(kind="mmrec", interactions=str(inter))
    left = measure_catalogue(alone, {"interactions": inter})
    seen = [f"{inter}: {own_data.count_catalogue(left)}; its split is kept"]

    paths = {"interactions": inter}
    items = None
    features: dict[str, Path] = {}
    if not given.interactions_only:
        items = inspect_items(given.items) if given.items else find_items(inter)
        paths |= find_tables(inter, items)
        features = {path.stem: path for path in sorted(inter.parent.glob(FEATURES))}

    seen += items.described() if items else []
    for name, path in features.items():
        width = measure_width(path, inter, left.items)
        seen.append(f"{path}: feature set {name}, {width:,} numbers per item")
    pictures = None
    if given.images:
        pictures = inspect.inspect_images(given.images, find_names(paths, items))
        seen += filter(None, [pictures.seen])
    described = inspect.list_modalities(items) if items else []
    modalities = own_data.join_modalities(described, pictures)
    if not modalities and not features and not given.interactions_only:
        raise UserError(
            f"{inter}: no features (such as image_feat.npy), texts or images next to it; add them; "
            "--interactions-only does without"
        )
    seen += own_data.describe_language(items) if items else []

    own_data.check_paths([*paths.values(), *features.values()])
    source: dict[str, Any] = {"kind": "mmrec"} | {role: str(path) for role, path in paths.items()}
    if features:
        source["features"] = {name: str(path) for name, path in features.items()}
    sections = own_data.describe_sections(given.name, source, {}, pictures)
    return OwnData(sections, left.items, modalities, seen, list(features))


def find_inter(given: Path) -> Path:
    if not given.is_dir():
        return given

    inter_files = sorted([*given.glob(f"*{ENDING}"), *given.glob(f"*{ENDING}.gz")])
    if not inter_files:
        raise UserError(
            f"{given}: a folder without an .inter file; "
            "give MMRec's folder, or a file of interactions"
        )
    if len(inter_files) > 1:
        names = " or ".join(path.name for path in inter_files)
        raise UserError(f"{given}: the interactions may be {names}; give one by its path")
    return inter_files[0]


def find_items(inter: Path) -> InspectedTable | None:
    """Return the table with texts or images of items, if any; UserError for several."""
    tables = []
    for path in sorted(inter.parent.iterdir()):
        columns = _read_columns(path) if path.name.removesuffix(".gz").endswith(TABLES) else []
        if NUMBER in columns and not {*columns}.isdisjoint(CONTENT.values()):
            table = _item_table(path, columns, ITEM_NAMES[:1])
            tables += [table] if inspect.list_modalities(table) else []

    if len(tables) > 1:
        names = " or ".join(table.path.name for table in tables)
        raise UserError(f"{inter.parent}: the items may be {names}; give one by --items")
    return tables[0] if tables else None


def inspect_items(path: Path) -> InspectedTable:
    columns = column_names(path)
    if NUMBER not in columns:
        raise UserError(f"{path}: no column itemID, MMRec's numbers, in {', '.join(columns)}")
    table = _item_table(path, columns, ITEM_NAMES[:1])
    if not inspect.list_modalities(table):
        raise UserError(
            f"{path}: no row has one of {', '.join(CONTENT.values())}; give another file"
        )
    return table


def _read_columns(path: Path) -> list[str]:
    try:
        return column_names(path)
    except UserError:  # not a table
        return []


def _item_table(path: Path, columns: list[str], identifiers: Sequence[str]) -> InspectedTable:
    identifier = next((name for name in identifiers if name in columns), NUMBER)
    roles = {"number": NUMBER, "item": identifier}
    content = {role: column for role, column in CONTENT.items() if column in columns}
    return InspectedTable(path, columns, roles | content)


def find_tables(inter: Path, items: InspectedTable | None) -> dict[str, Path]:
    """Return role -> table of items, and mappings."""
    paths = {role: inter.with_name(name) for role, name in MAPPINGS.items()}
    if items:
        paths["items"] = items.path
        if items.roles["item"] != NUMBER:  # it names the items itself
            del paths["item_mapping"]
    return {role: path for role, path in paths.items() if path.is_file()}


def find_names(paths: Mapping[str, Path], items: InspectedTable | None) -> InspectedTable:
    """Return the table with the items' identifiers."""
    mapping = paths.get("item_mapping")
    if mapping:
        return _item_table(mapping, column_names(mapping), ITEM_NAMES)
    return items or InspectedTable(paths["interactions"], list(COLUMNS), {"item": NUMBER})


def measure_width(path: Path, inter: Path, items: int) -> int:
    """Return the width of vectors; UserError unless there is one for each item."""
    if not DATASET_NAME.fullmatch(path.stem):
        raise UserError(f"{path}: no name of a feature set; use letters, digits, _ and -")
    vectors = open_vectors(path)
    if vectors.count != items:
        raise UserError(
            f"{path}: {vectors.count:,} rows, and {inter.name} has {items:,} items; "
            "row i belongs to itemID i; repair or move the file"
        )
    return vectors.width
