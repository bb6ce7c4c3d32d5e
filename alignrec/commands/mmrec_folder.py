"""Inspect a folder in MMRec's format: the split, texts, mappings and feature files next to it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.commands import own_data
from alignrec.commands.own_data import Given, OwnData
from alignrec.pipeline.beit3.params import BEIT3_SETS
from alignrec.pipeline.dataset.catalogue import measure_catalogue
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.kinds import NAMED_KINDS
from alignrec.pipeline.io.csv_rows import find_delimiter
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names
from alignrec.pipeline.sources import inspect
from alignrec.pipeline.sources.inspect import InspectedTable
from alignrec.pipeline.sources.mmrec import COLUMNS, ITEM_NAMES, USER_NAMES, MmrecSource
from alignrec.pipeline.vectors.base import open_vectors

ENDING = ".inter"
IDENTIFIER_COLUMN = "asin"  # column of identifiers in MMRec's item file
FEATURE_FILE_ENDING = "_feat"  # ending of MMRec's names of feature files, such as image_feat.npy
TABLES = (".csv", ".tsv", ".json", ".jsonl")  # endings of tables, also with .gz
CONTENT = {
    "title": "title",
    "brand": "brand",
    "categories": "categories",
    "description": "description",
    "image_urls": "imUrl",
}  # role -> column of MMRec's item file
OURS = {*NAMED_KINDS, *ENCODERS, *BEIT3_SETS}  # names that imported sets may not have


class ItemFiles(NamedTuple):
    """Tables next to the .inter file, by what they say of items and users."""

    items: InspectedTable | None  # texts and addresses of images
    item_mapping: Path | None
    user_mapping: Path | None

    @property
    def named(self) -> InspectedTable | None:
        """The table with the items' identifiers."""
        if self.item_mapping:
            return _item_table(self.item_mapping, ITEM_NAMES)
        return self.items


class FeatureFile(NamedTuple):
    """A file with a vector per item."""

    name: str  # of the feature set
    path: Path
    width: int


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

    files = ItemFiles(None, None, None)
    features: list[FeatureFile] = []
    if not given.interactions_only:
        files = find_tables(inter, given.items)
        features = find_features(inter, left.items)
        seen += _describe_files(inter, files, features)
    pictures = None
    if given.images:
        named = files.named or InspectedTable(inter, list(COLUMNS), {"item": "itemID"})
        pictures = inspect.inspect_images(given.images, named)
        seen += filter(None, [pictures.seen])

    described = inspect.list_modalities(files.items) if files.items else []
    modalities = own_data.join_modalities(described, pictures)
    if not modalities and not features and not given.interactions_only:
        raise UserError(
            f"{inter}: no features (such as image_feat.npy), texts or images next to it; add them; "
            "--interactions-only does without"
        )
    if files.items:
        seen += own_data.describe_language(files.items)

    source = _describe_source(inter, files, features)
    sections = own_data.describe_sections(given.name, source, {}, pictures)
    return OwnData(sections, left.items, modalities, seen, [file.name for file in features])


def _describe_source(
    inter: Path,
    files: ItemFiles,
    features: Sequence[FeatureFile],
) -> dict[str, Any]:
    paths = {
        "interactions": inter,
        "items": files.items.path if files.items else None,
        "item_mapping": files.item_mapping,
        "user_mapping": files.user_mapping,
    }
    source: dict[str, Any] = {"kind": "mmrec"}
    source |= {key: str(path) for key, path in paths.items() if path}
    if features:
        source["features"] = {file.name: str(file.path) for file in features}

    own_data.check_paths([*filter(None, paths.values()), *(file.path for file in features)])
    return source


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


def find_tables(inter: Path, items: Path | None) -> ItemFiles:
    """Find the item file, unless it is given, and the mappings of items and users."""
    tables = {path: _read_columns(path) for path in _list_folder(inter, TABLES)}
    items_table = _item_table(items) if items else _find_items(tables)
    if items_table and not inspect.list_modalities(items_table):
        raise UserError(
            f"{items_table.path}: no row has one of {', '.join(CONTENT.values())}; "
            "give another file"
        )

    item_mapping = _find_mapping(tables, "itemID", ITEM_NAMES)
    if items_table and items_table.roles["item"] == IDENTIFIER_COLUMN:
        item_mapping = None
    return ItemFiles(items_table, item_mapping, _find_mapping(tables, "userID", USER_NAMES))


def _find_items(tables: Mapping[Path, set[str]]) -> InspectedTable | None:
    """Return the item file with most columns of texts and images."""
    best = None
    for path, columns in tables.items():
        if "itemID" not in columns or columns.isdisjoint(CONTENT.values()):
            continue
        table = _item_table(path)
        is_richer = best is None or len(table.roles) > len(best.roles)
        if is_richer and inspect.list_modalities(table):
            best = table

    return best


def _find_mapping(
    tables: Mapping[Path, set[str]],
    number: str,
    names: Sequence[str],
) -> Path | None:
    for path, columns in tables.items():
        if number in columns and find_delimiter(path) and not columns.isdisjoint(names):
            return path

    return None


def _read_columns(path: Path) -> set[str]:
    try:
        return set(column_names(path))
    except UserError:  # not a table
        return set()


def find_features(inter: Path, items: int) -> list[FeatureFile]:
    """Find the arrays with a row per item; UserError if one that is named as features is not."""
    features: dict[str, FeatureFile] = {}
    for path in _list_folder(inter, (".npy",)):
        fault = ""
        try:
            vectors = open_vectors(path)
            if vectors.count != items:
                fault = f"{path}: {vectors.count:,} rows, and {inter.name} has {items:,} items"
        except UserError as e:
            fault = str(e)
        if fault and path.stem.endswith(FEATURE_FILE_ENDING):
            raise UserError(f"{fault}; row i belongs to itemID i; repair or move the file")
        if fault:
            continue

        name = _name_set(path)
        if name in features:
            raise UserError(f"{path}: a second feature set {name}; rename the file")
        features[name] = FeatureFile(name, path, vectors.width)

    return list(features.values())


def _name_set(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", path.stem).lstrip("_-")[:50] or "features"
    return f"{name}-imported" if name in OURS else name


def _item_table(path: Path, names: Sequence[str] = (IDENTIFIER_COLUMN,)) -> InspectedTable:
    columns = column_names(path)
    if "itemID" not in columns:
        raise UserError(f"{path}: no column itemID, MMRec's numbers, in {', '.join(columns)}")

    identifier = next((name for name in names if name in columns), "itemID")
    content = {role: column for role, column in CONTENT.items() if column in columns}
    return InspectedTable(path, columns, {"number": "itemID", "item": identifier} | content)


def _list_folder(inter: Path, endings: Sequence[str]) -> list[Path]:
    paths = sorted(inter.parent.iterdir())
    return [path for path in paths if path.name.removesuffix(".gz").endswith(tuple(endings))]


def _describe_files(inter: Path, files: ItemFiles, features: Sequence[FeatureFile]) -> list[str]:
    seen = files.items.described() if files.items else []
    used = {inter, files.item_mapping, files.user_mapping}
    if files.items:
        used.add(files.items.path)
    for path, what in ((files.item_mapping, "items"), (files.user_mapping, "users")):
        if path:
            seen.append(f"{path}: identifiers of {what}")
    for file in features:
        used.add(file.path)
        seen.append(f"{file.path}: feature set {file.name}, {file.width:,} numbers per item")

    similar = _list_folder(inter, (".csv", ".tsv", ".npy"))
    unused = [path.name for path in similar if path not in used]
    if unused:
        seen.append(f"not used: {', '.join(unused)}")
    return seen
