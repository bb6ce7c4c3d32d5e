"""Tables of items to embed: Parquet, CSV or JSON lines."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.dataset.items import compose_text, merge_products
from alignrec.pipeline.dataset.products import MAX_TEXT_CHARACTERS, clean_product
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.json_rows import (
    column_names,
    json_lines,
    json_object,
    mark_unreadable,
    refuse_repeated,
)
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.io.sql import identifier_of
from alignrec.pipeline.io.text import MAX_LINE_BYTES, MAX_RAW_BYTES, RejectedRow
from alignrec.pipeline.release.manifest import ItemColumns
from alignrec.pipeline.release.recipe import TABULAR, Recipe, source_reader
from alignrec.pipeline.runtime.section import nearest
from alignrec.pipeline.sources.base import Product, as_json, as_text, is_path
from alignrec.pipeline.sources.tabular import Tabular, TabularSource, split_values
from alignrec.pipeline.vectors.identifiers import IDENTIFIER_COLUMNS, rank_identifier
from alignrec.schemas import TEXT_FIELDS

# identifier: the named column, or the one that `new` and `compare` would choose; text: the named
# columns, or composed as in the pipeline, or the column `text`; image: bytes, a file name, or
# <id>.<ext>
ITEM, IMAGES = "item", "image_urls"  # roles, next to those of TEXT_FIELDS
IMAGE, TEXT = "image", "text"  # columns read if none is named
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
TABLE_BLOCK_ROWS = 1024
BYTES_PER_BLOCK = 1 << 26  # of texts and images, above which a block ends
Cells = dict[str, Any]
MAX_IMAGES = 32  # tried per item


class FoundImage(NamedTuple):
    """An image of an item, before it is decoded."""

    image: Path | bytes | None  # path inside the image folder, or the bytes of the file
    status: str  # ok, missing, too_large or blocked: see schemas.IMAGE_STATUSES
    reason: str = ""

    def read(self, max_bytes: int) -> bytes | None:
        """Return the bytes of the image; None without one or if it is larger than `max_bytes`."""
        if self.image is None:
            return None
        if isinstance(self.image, Path):
            return self.image.read_bytes() if self.image.stat().st_size <= max_bytes else None
        return self.image if len(self.image) <= max_bytes else None


class Columns(NamedTuple):
    """Columns of a table to read, and the text made of them."""

    item: str | None = None  # identifiers, as named by the user
    usual_item: str | None = (
        None  # identifiers in rows that have it; otherwise a name of IDENTIFIER_COLUMNS
    )
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
    most: int = 1  # images per item
    # of a part of a larger table: digests of the identifiers of earlier parts, to which its own are
    # added, and the number of its first row
    seen: set[bytes] | None = None
    first_line: int = 1


class ItemRow(NamedTuple):
    """One item of a table: identifier, text and images."""

    asin: str
    text: str
    images: Sequence[FoundImage]  # at least one, if only to say why there is none

    @property
    def n_bytes(self) -> int:
        """Approximate size in memory."""
        held = [found.image for found in self.images if isinstance(found.image, bytes)]
        return len(self.text) + sum(map(len, held))

    def without_images(self) -> Self:
        return self._replace(images=())


def open_table(
    path: Path,
    images: Path | None,
    named: Mapping[str, str] = {},
    text: Sequence[str] = (),
    recipe: Recipe | None = None,
    most: int = 1,
) -> ItemTable:
    """Find the columns of a table; UserError if a file, folder or column is missing.

    Args:
        path: A file, or a folder of Parquet files.
        images: Folder of images.
        named: Role -> column, overriding the recipe's and default names.
        text: Columns joined as sentences, in place of roles; a single one is kept verbatim.
        recipe: How the release or project that has the encoder makes its texts; None without one.
        most: Images to read per item.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such file of items; give Parquet, CSV or JSON lines, an item a row"
        )
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images")
    repeated = [role for role in named if role in TEXT_FIELDS]
    if text and repeated:
        fault = f"--text is the whole text, and --column its {repeated[0]}"
        raise UserError(f"{fault}; give one of them")

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

    columns = _choose_columns(present, named, text, recipe)
    refuse_repeated(path, present, [*columns.useful(present), TEXT])
    identifier = next(iter(columns.identifiers(present)), "asin")
    differences = list(_find_differences(path, present, named, columns, recipe)) if recipe else []
    return ItemTable(path, images, columns, identifier, differences, most)


def _choose_columns(
    present: Sequence[str], named: Mapping[str, str], text: Sequence[str], recipe: Recipe | None
) -> Columns:
    """Choose the columns: those named, otherwise the recipe's, otherwise those of default names."""
    recorded = (recipe and recipe.columns) or ItemColumns()
    usual = {role: column for role, column in recorded.roles.items() if column in present}
    appended = tuple(name for name in recorded.text if name in present)
    chosen = {**usual, **named}

    roles = {role: chosen[role] for role in TEXT_FIELDS if role in chosen}
    taken = {*chosen.values(), *appended}
    roles |= {role: role for role in TEXT_FIELDS if role not in roles and role not in taken}

    return Columns(
        item=named.get(ITEM),
        usual_item=usual.get(ITEM),
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
        remedy = "name columns by role, such as --column title=NAME"
        yield f"--text is not cleaned and composed like the encoder's texts ({composed}); {remedy}"
        return
    if recipe.columns is None:
        return

    recorded = recipe.columns.roles
    described = [role for role in recipe.text if columns.roles.get(role) in present]
    if not described and TEXT in present:  # texts that are composed already
        return
    for role in recipe.text:
        if role in recorded and role not in described:
            lacking = f"no {role} (column '{recorded[role]}'), which the encoder's texts have"
            yield f"{path}: {lacking}; name its column by --column {role}=NAME"
        if role in named and role not in recorded:
            yield f"--column {role}={named[role]}: the encoder's texts have no {role}"
    if "description" in recipe.text:
        for name in recipe.columns.text:
            if name not in columns.appended:
                yield f"{path}: no column '{name}', which the encoder's texts have"


def digest_identifier(identifier: str) -> bytes:
    """Return what stands for an identifier in sets: 16 bytes, to save memory."""
    return hashlib.blake2b(identifier.encode(errors="replace"), digest_size=16).digest()


def read_blocks(table: ItemTable) -> Iterator[tuple[list[ItemRow], list[RejectedRow]]]:
    """Yield blocks of items and invalid rows, in order."""
    parser = _RowParser(table)
    rows: list[ItemRow] = []
    rejects: list[RejectedRow] = []
    n_bytes = 0
    for number, raw in enumerate(_read_raw(table.path, table.columns), table.first_line):
        if isinstance(raw, bytes) and not raw.strip():
            continue
        try:
            row = parser.parse_row(parser.parse_line(raw) if isinstance(raw, bytes) else raw)
        except ValueError as e:
            rejects.append(RejectedRow(number, str(e), _as_line(raw)[:MAX_RAW_BYTES]))
        else:
            rows.append(row)
            n_bytes += row.n_bytes

        if len(rows) + len(rejects) == TABLE_BLOCK_ROWS or n_bytes > BYTES_PER_BLOCK:
            yield rows, rejects
            rows = []
            rejects = []
            n_bytes = 0
    if rows or rejects:
        yield rows, rejects


def cut_blocks(rows: Iterable[ItemRow]) -> Iterator[list[ItemRow]]:
    """Cut rows into blocks of bounded number and bytes."""
    block: list[ItemRow] = []
    n_bytes = 0
    for row in rows:
        block.append(row)
        n_bytes += row.n_bytes
        if len(block) == TABLE_BLOCK_ROWS or n_bytes > BYTES_PER_BLOCK:
            yield block
            block = []
            n_bytes = 0
    if block:
        yield block


def _read_raw(path: Path, columns: Columns) -> Iterator[bytes | Cells]:
    """Yield the lines of a text file, or the rows of Parquet."""
    if path.suffix == ".parquet" or path.is_dir():
        yield from _read_parquet(path, columns)
    else:
        yield from json_lines(path)


def _as_line(raw: bytes | Cells) -> bytes:
    if isinstance(raw, bytes):
        return raw
    plain = {name: value for name, value in raw.items() if isinstance(value, str | int)}
    return as_json(plain).encode()


def _read_parquet(path: Path, columns: Columns) -> Iterator[bytes | Cells]:
    files = io.list_plain(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet in this folder of items")
    for file in files:
        present = column_names(file)
        identifiers = columns.identifiers(present)
        if not identifiers:
            remedy = "name that of the identifiers by --column item=NAME"
            raise UserError(f"{file}: no column {', '.join(IDENTIFIER_COLUMNS)}; {remedy}")

        useful = columns.useful(present)
        if not columns.text:
            useful.append(TEXT)
            if source_reader(columns.kind) is not None:
                useful = present  # its reader looks for fields of its own
        names = [name for name in dict.fromkeys(useful) if name in present]
        refuse_repeated(file, present, names)
        for batch in read_batches(file, names):
            try:
                yield from _batch_rows(batch)
            except OverflowError as e:  # such as a date after the year 9999
                raise UserError(
                    f"{file}: {one_line(e, 80)}; name the columns of text by --text"
                ) from None


def _batch_rows(batch: pa.RecordBatch) -> list[bytes | Cells]:
    """Return the rows of a batch; one that is not UTF-8 as a line that cannot be read."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [mark_unreadable("not UTF-8")]

    half = len(batch) // 2
    return _batch_rows(batch.slice(0, half)) + _batch_rows(batch.slice(half))


class _RowParser:
    """Parser of the rows of one table, which remembers their identifiers."""

    def __init__(self, table: ItemTable) -> None:
        self._columns = table.columns
        self._images = table.images
        self._most = table.most
        # of identifiers
        self._digests: set[bytes] = set() if table.seen is None else table.seen
        self._source = source_reader(table.columns.kind)
        source = TabularSource.model_construct(
            kind=TABULAR,
            item_columns=dict.fromkeys(TEXT_FIELDS, "") | dict(table.columns.roles),
            text=list(table.columns.appended),
        )
        self._tabular = Tabular(source)

    def parse_line(self, line: bytes) -> Cells:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("line too long")
        if self._source is not None:
            with suppress(ValueError):  # lines in the source's own format, such as Python literals
                return self._source.parse(line)
        return json_object(line)

    def parse_row(self, cells: Cells) -> ItemRow:
        columns = self._columns
        names = columns.identifiers(cells)
        values = (value for value in map(cells.get, names) if isinstance(value, (str, int)))
        asin = next(filter(None, map(identifier_of, values)), None)
        if asin is None:
            expected = " or ".join(names) or "a column of that name, such as asin, sku or id"
            raise ValueError(f"no identifier in {expected}")

        digest = digest_identifier(asin)
        if digest in self._digests:
            raise ValueError(f"{one_line(asin, 100)!r} occurred before")

        images = [FoundImage(None, "missing", "the encoder reads no image")]
        if columns.image:
            images = _find_images(asin, cells.get(columns.image), self._images, self._most)
        text = self._compose(cells)
        if len(text) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"text of more than {MAX_TEXT_CHARACTERS:,} characters")

        self._digests.add(digest)
        return ItemRow(asin, text, images)

    def _compose(self, cells: Cells) -> str:
        columns = self._columns
        if columns.text:
            return _join(as_text(cells.get(name)) for name in columns.text)

        whole = cells.get(TEXT) if TEXT not in columns.of_texts() else None
        if columns.whole and isinstance(whole, str):
            return whole
        composed = compose_text(clean_product(self._product(cells)), columns.composed)
        if not composed and isinstance(whole, str):
            return whole
        return composed

    def _product(self, cells: Cells) -> Product:
        """Return the product of the source's own reader, its empty fields filled by role."""
        described = {name: cells.get(name) for name in self._columns.of_texts()}
        product = self._tabular.product(described)
        if self._source is None:
            return product

        plain = {name: value for name, value in cells.items() if name != self._columns.image}
        return merge_products(self._source.product(plain), product)


def _join(texts: Iterable[str]) -> str:
    parts = list(texts)
    if len(parts) == 1:
        return parts[0]
    stripped = filter(None, map(str.strip, parts))
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in stripped)


def find_image(asin: str, folder: Path) -> FoundImage:
    """Find the image file that is named after an item, inside a folder."""
    return _find_images(asin, None, folder, 1)[0]


def _find_images(asin: str, cell: Any, images: Path | None, most: int) -> list[FoundImage]:
    """Return the images of an item in the order to try, or why there is none."""
    entries = [_unpack_entry(entry) for entry in (cell if isinstance(cell, list) else [cell])]
    files = [FoundImage(entry, "ok") for entry in entries if isinstance(entry, bytes)]
    if files:
        return files[:MAX_IMAGES] if most > 1 else files[:1]

    addresses = split_values(entries if isinstance(cell, list) else entries[0])
    names = list(filter(is_path, addresses))
    if images is None:
        if names:
            remedy = "pass the folder that holds it with --images"
            raise UserError(f"item {asin!r} names the image {names[0]!r}; {remedy}")
        if addresses:
            reason = "its image is on the web, and only files are read"
            return [FoundImage(None, "missing", reason)]
        return [FoundImage(None, "missing", "no folder of images")]

    limit = MAX_IMAGES if most > 1 else 1
    found: list[FoundImage] = []
    inside = images.resolve()
    for candidate in names or _usual_names(asin, most):
        image = _find_file(candidate, inside)
        if image is None and names and most > 1:
            image = FoundImage(None, "missing", _no_file(candidate))
        if image is not None:
            found.append(image)
        if len(found) == limit:
            break
    expected = names[0] if names else f"{asin}.*"
    return found or [FoundImage(None, "missing", _no_file(expected))]


def _unpack_entry(entry: Any) -> Any:
    if isinstance(entry, dict):  # the image type of Hugging Face `datasets`
        entry = entry.get("bytes") or entry.get("path")
    return str(entry) if isinstance(entry, int) else entry


def _usual_names(asin: str, most: int) -> Iterator[str]:
    """Yield the names of image files of an item whose row names none: a.jpg, a_1.jpg, a_2.jpg."""
    stems = [asin]
    if most > 1:
        stems += [f"{asin}_{number}" for number in range(1, most + 1)]
    for stem in stems:
        yield from (f"{stem}{ending}" for ending in ENDINGS)


def _find_file(name: str, folder: Path) -> FoundImage | None:
    """Find a file in a folder whose links are resolved; None if it is not there."""
    if "\0" in name:
        return FoundImage(None, "blocked", "its image lies outside the folder")
    try:
        path = (folder / name).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError) as e:  # such as a name that is too long or a symlink loop
        return FoundImage(None, "missing", f"no such file among the images: {one_line(e, 100)}")
    if not path.is_relative_to(folder):
        return FoundImage(None, "blocked", "its image lies outside the folder")
    return FoundImage(path, "ok") if is_file else None


def _no_file(name: str) -> str:
    return one_line(f"no file {name} among the images", 200)
