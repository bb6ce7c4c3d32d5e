"""Columns of a table of items to embed: which of them are identifiers, texts and images.

Texts are made of them as a release or project makes those of its source.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.items import PRODUCT_FIELDS
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names, refuse_repeated
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import ItemColumns, Manifest
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import nearest, validate
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import SOURCES, Reader
from alignrec.pipeline.sources.inspect import guess_column
from alignrec.pipeline.vectors.identifiers import rank_identifier
from alignrec.schemas import TEXT_FIELDS

# identifier: the named column, or the one that `new` and `compare` would choose; text: the named
# columns, or composed as in the pipeline, or the column `text`; image: bytes, a file name, or
# <id>.<ext>
ITEM, IMAGES = "item", "image_urls"  # roles, next to those of TEXT_FIELDS
IMAGE, TEXT = "image", "text"  # columns read if none is named
TABULAR = "tabular"


@dataclass(frozen=True)
class Recipe:
    """Source of a release or project, columns of its item file, and roles in its texts."""

    kind: str = TABULAR
    columns: ItemColumns | None = None  # None without an item file
    text: tuple[str, ...] = TEXT_FIELDS  # roles that compose the text, in order


class Columns(NamedTuple):
    """Columns of a table to read, and the text made of them."""

    item: str | None = None  # identifiers, as named by the user
    # identifiers in rows that have it; otherwise a name of IDENTIFIER_COLUMNS
    usual_item: str | None = None
    roles: Mapping[str, str] = {}  # role in texts -> column
    appended: tuple[str, ...] = ()  # appended to the description
    composed: tuple[str, ...] = TEXT_FIELDS  # roles that compose the text, in order
    text: tuple[str, ...] = ()  # the text in place of the roles; a single column is kept verbatim
    whole: bool = True  # whether the column `text`, if there is one, precedes the roles
    image: str = IMAGE  # empty: ignore images
    kind: str = TABULAR  # source whose own reader sees the rows first

    def identifiers(self, present: Collection[str]) -> list[str]:
        """Return the columns of identifiers among those that a table or row has, best first."""
        if self.item is not None:
            return [self.item]
        if self.usual_item in present:
            return [str(self.usual_item)]
        usual = [name for name in present if rank_identifier(name) >= 0]
        return sorted(usual, key=rank_identifier)

    def of_texts(self) -> list[str]:
        """Return the columns that texts are made of; `text` is read if they are empty."""
        return list(self.text) or [*self.roles.values(), *self.appended]

    def useful(self, present: Collection[str]) -> list[str]:
        """Return the columns of identifiers, texts and images, whether present or not."""
        return [*self.identifiers(present), *self.of_texts(), self.image]


class ItemTable(NamedTuple):
    """A table of items with its images, from `open_table`."""

    path: Path  # a file, or a folder of Parquet files
    images: Path | None  # folder of images
    columns: Columns
    identifier: str  # column of identifiers; "asin" if there is none
    differences: Sequence[str] = ()  # how its texts differ from those of the recipe, as sentences
    guessed: Mapping[str, str] = {}  # role -> column, found by its usual name


def open_table(
    path: Path,
    images: Path | None,
    named: Mapping[str, str] = {},
    text: Sequence[str] = (),
    recipe: Recipe | None = None,
) -> ItemTable:
    """Find the columns of a table; UserError if a file, folder or column is missing.

    Args:
        path: A file, or a folder of Parquet files.
        images: Folder of images.
        named: Role -> column, overriding the recipe's and default names.
        text: Columns joined as sentences, in place of roles; a single one is kept verbatim.
        recipe: How the release or project that has the encoder makes its texts; None without one.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such file of items; give Parquet, CSV or JSON lines, an item a row"
        )
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images")
    repeated = [role for role in named if role in TEXT_FIELDS]
    if text and repeated:
        raise UserError(
            f"--text is the whole text, and --column its {repeated[0]}; give one of them"
        )

    required = [*named.values(), *text]
    recorded = recipe.columns.names() if recipe and recipe.columns else []
    files = sorted(path.glob("*.parquet"))[:1] if path.is_dir() else [path]
    present: list[str] = []
    for file in files:
        present += column_names(file, [*required, *recorded])
    if path.is_file() and path.stat().st_size:
        for name in required:
            if name not in present:
                raise UserError(f"{path}: no column '{name}'{nearest(name, present)}")

    guessed = _guess_columns(path, present, named, text, recipe)
    columns = _choose_columns(present, named, guessed, text, recipe)
    refuse_repeated(path, present, [*columns.useful(present), TEXT])
    identifier = next(iter(columns.identifiers(present)), "asin")
    differences = list(_find_differences(path, present, named, columns, recipe)) if recipe else []
    return ItemTable(path, images, columns, identifier, differences, guessed)


def _guess_columns(
    path: Path,
    present: Sequence[str],
    named: Mapping[str, str],
    text: Sequence[str],
    recipe: Recipe | None,
) -> dict[str, str]:
    """Return role -> column by the names that `alignrec new` knows, for roles that have no column
    otherwise; of a recipe's roles only, and none if its source reads the rows itself.
    """
    if recipe and source_reader(recipe.kind) is not None:
        return {}
    roles = [ITEM, IMAGES] if text else [ITEM, *TEXT_FIELDS, IMAGES]
    taken = {TEXT, *named.values(), *text}
    with_column = {*named, *(role for role in TEXT_FIELDS if role in present)}
    if IMAGE in present:
        with_column.add(IMAGES)
    if any(rank_identifier(name) >= 0 for name in present):
        with_column.add(ITEM)
    if recipe and recipe.columns:
        recorded = recipe.columns.roles
        roles = [role for role in roles if role in recorded]
        taken |= {*recorded.values(), *recipe.columns.text}
        with_column |= {role for role, column in recorded.items() if column in present}

    free = [name for name in present if name not in taken]
    guesses = {role: guess_column(path, role, free) for role in roles if role not in with_column}
    return {role: column for role, column in guesses.items() if column is not None}


def _choose_columns(
    present: Sequence[str],
    named: Mapping[str, str],
    guessed: Mapping[str, str],
    text: Sequence[str],
    recipe: Recipe | None,
) -> Columns:
    """Choose the columns: those named, otherwise the recipe's, otherwise those of usual names."""
    recorded = (recipe and recipe.columns) or ItemColumns()
    usual = {role: column for role, column in recorded.roles.items() if column in present}
    appended = tuple(name for name in recorded.text if name in present)
    chosen = {**guessed, **usual, **named}

    roles = {role: chosen[role] for role in TEXT_FIELDS if role in chosen}
    taken = {*chosen.values(), *appended}
    roles |= {role: role for role in TEXT_FIELDS if role not in roles and role not in taken}

    return Columns(
        item=named.get(ITEM),
        usual_item=usual.get(ITEM, guessed.get(ITEM)),
        roles=roles,
        appended=appended,
        composed=recipe.text if recipe else TEXT_FIELDS,
        text=tuple(text),
        whole=not (recipe and recipe.columns) and named.keys().isdisjoint(TEXT_FIELDS),
        image=chosen.get(IMAGES, IMAGE),
        kind=recipe.kind if recipe and named.keys().isdisjoint(TEXT_FIELDS) else TABULAR,
    )


def _find_differences(
    path: Path, present: Sequence[str], named: Mapping[str, str], columns: Columns, recipe: Recipe
) -> Iterator[str]:
    """Yield how the texts of a table differ from those of the recipe."""
    if columns.text:
        composed = ", ".join(recipe.text)
        yield (
            f"--text is not cleaned and composed like the encoder's texts ({composed}); "
            "name columns by role, such as --column title=NAME"
        )
        return
    if recipe.columns is None:
        return

    recorded = recipe.columns.roles
    described = [role for role in recipe.text if columns.roles.get(role) in present]
    if not described and TEXT in present:  # texts that are composed already
        return
    for role in recipe.text:
        if role in recorded and role not in described:
            yield (
                f"{path}: no {role} (column '{recorded[role]}'), which the encoder's texts have; "
                f"name its column by --column {role}=NAME"
            )
        if role in named and role not in recorded:
            yield f"--column {role}={named[role]}: the encoder's texts have no {role}"
    if "description" in recipe.text:
        for name in recipe.columns.text:
            if name not in columns.appended:
                yield f"{path}: no column '{name}', which the encoder's texts have"


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
