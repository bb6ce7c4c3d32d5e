"""Tables of items to embed: Parquet, CSV or JSON lines."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline import io
from alignrec.pipeline.dataset.items import compose_text
from alignrec.pipeline.dataset.products import LONGEST_TEXT, clean_product
from alignrec.pipeline.io import text as lines
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.sql import identifier_of
from alignrec.pipeline.io.text import Reject, column_names
from alignrec.pipeline.runtime.config import nearest
from alignrec.pipeline.sources.base import Product, as_json, as_list, as_text
from alignrec.pipeline.sources.feature_files import NAMES, rank_identifier

# identifier: the named column, or the one that `new` and `compare` would choose; text: the named columns, or `text`,
# or composed as in the pipeline; image: bytes, a file name, or <id>.<ext>
FIELDS = ("text", "title", "brand", "categories", "description")  # columns read as text if none is named
IMAGE = "image"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
BLOCK, MOST_HELD = 1024, 1 << 28  # maximum rows of a block, and bytes of its texts and images
Cells = dict[str, Any]


class Columns(NamedTuple):
    """Columns of a table to read; by default, those with the names above."""

    id: str | None = None
    text: tuple[str, ...] = ()  # joined as sentences in this order; a single column is kept verbatim
    image: str | None = None  # empty: ignore images


DEFAULT = Columns()


class Table(NamedTuple):
    """A table of items with its images, from `open_table`."""

    path: Path  # a file, or a folder of Parquet files
    images: Path | None  # folder of images
    columns: Columns
    identifier: str  # column of identifiers; "asin" if there is none


class Row(NamedTuple):
    """One item of a table: identifier, text and image."""

    asin: str
    text: str
    image: Path | bytes | None  # path inside the image folder, or the bytes of the file
    status: str  # ok, missing, too_large or blocked: see schemas.IMAGE_STATUSES
    reason: str

    def read_image(self, most: int) -> bytes | None:
        """Return the bytes of the image; None without one or if it is larger than `most` bytes."""
        if isinstance(self.image, Path):
            return self.image.read_bytes() if self.image.stat().st_size <= most else None
        return self.image if self.image is None or len(self.image) <= most else None


def open_table(path: Path, images: Path | None, columns: Columns = DEFAULT) -> Table:
    """Find the columns of a table; UserError if a file, folder or column is missing."""
    if not path.exists():
        raise UserError(f"{path}: no such file of items; give Parquet, CSV or JSON lines, an item a row")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images")
    named = [name for name in (columns.id, *columns.text, columns.image) if name]
    files = sorted(path.glob("*.parquet"))[:1] if path.is_dir() else [path]
    there = [name for file in files for name in column_names(file, named)]
    for name in named if path.is_file() and path.stat().st_size else ():
        if name not in there:
            raise UserError(f"{path}: no column '{name}'{nearest(name, there)}")
    return Table(path, images, columns, columns.id or next(iter(_identifiers(there)), "asin"))


def read_blocks(table: Table) -> Iterator[tuple[list[Row], list[Reject]]]:
    """Yield blocks of items and invalid rows, in order."""
    path, images, columns, _ = table
    seen: set[bytes] = set()  # 16-byte digests instead of identifiers, to save memory
    is_parquet = path.suffix == ".parquet" or path.is_dir()
    found: Iterator[bytes | Cells] = _read_parquet(path, columns) if is_parquet else lines.json_lines(path)
    rows, rejects, held = list[Row](), list[Reject](), 0
    for number, raw in enumerate(found, 1):
        try:
            if isinstance(raw, bytes) and not raw.strip():
                continue
            if isinstance(raw, bytes) and len(raw) > lines.LONGEST_LINE:
                raise ValueError("line too long")
            cells = lines.json_object(raw) if isinstance(raw, bytes) else raw
            rows.append(_parse_row(cells, images, columns, seen))
            held += len(rows[-1].text) + (len(rows[-1].image) if isinstance(rows[-1].image, bytes) else 0)
        except ValueError as e:
            if isinstance(raw, dict):
                plain = {name: value for name, value in raw.items() if isinstance(value, str | int)}
                raw = as_json(plain).encode()
            rejects.append(Reject(number, str(e), raw[: lines.KEPT]))
        if len(rows) + len(rejects) == BLOCK or held > MOST_HELD:
            yield rows, rejects
            rows, rejects, held = [], [], 0
    if rows or rejects:
        yield rows, rejects


def _read_parquet(path: Path, columns: Columns) -> Iterator[Cells]:
    files = io.list_plain(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet in this folder of items")
    for file in files:
        there = column_names(file)
        wanted = [columns.id] if columns.id else _identifiers(there)
        if not wanted:
            raise UserError(f"{file}: no column {', '.join(NAMES)}; name that of the identifiers with --id")
        wanted += [*(columns.text or (name for name in FIELDS if name in there))]
        image = IMAGE if columns.image is None else columns.image
        wanted += [image] if image in there else []
        for batch in lines.read_batches(file, list(dict.fromkeys(wanted))):
            try:
                yield from batch.to_pylist()
            except OverflowError as e:  # such as a date after the year 9999
                raise UserError(f"{file}: {one_line(e, 80)}; name the columns of text by --text") from None


def _identifiers(there: Iterable[str]) -> list[str]:
    return sorted((name for name in there if rank_identifier(name) >= 0), key=rank_identifier)


def _parse_row(cells: Cells, images: Path | None, columns: Columns, seen: set[bytes]) -> Row:
    names = [columns.id] if columns.id else _identifiers(cells)
    values = (value for value in map(cells.get, names) if isinstance(value, (str, int)))
    asin = next(filter(None, map(identifier_of, values)), None)
    if asin is None:
        raise ValueError(f"no identifier in {' or '.join(names) or 'a column of that name, such as asin, sku or id'}")
    digest = hashlib.blake2b(asin.encode(errors="replace"), digest_size=16).digest()
    if digest in seen:
        raise ValueError(f"{one_line(asin, 100)!r} occurred before")
    image: tuple[Path | bytes | None, str, str] = (None, "missing", "the encoder reads no image")
    if columns.image != "":
        image = _find_image(asin, cells.get(columns.image or IMAGE), images)
    text = _compose_text(cells, columns.text)
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"text of more than {LONGEST_TEXT:,} characters")
    seen.add(digest)
    return Row(asin, text, *image)


def _compose_text(cells: Cells, names: Sequence[str]) -> str:
    parts = [as_text(cells.get(name)) for name in names]
    if len(parts) == 1:
        return parts[0]
    if parts:
        return " ".join(part if part[-1] in ".!?" else f"{part}." for part in map(str.strip, parts) if part)
    if isinstance(cells.get("text"), str):
        return str(cells["text"])
    path = cells.get("categories")
    texts = {name: as_text(cells.get(name)) for name in ("title", "brand", "description")}
    categories = path.split("|") if isinstance(path, str) else as_list(path)
    return compose_text(clean_product(Product(**texts, categories=categories, image_urls=[], extra={})))


def _find_image(asin: str, cell: Any, images: Path | None) -> tuple[Path | bytes | None, str, str]:
    if isinstance(cell, dict):  # the image type of Hugging Face `datasets`
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell, "ok", ""
    name = str(cell) if isinstance(cell, str | int) else ""
    if images is None:
        if name:
            raise UserError(f"item {asin!r} names the image {name!r}; pass the folder that holds it with --images")
        return None, "missing", "no folder of images"
    inside = images.resolve()
    for candidate in [name] if name else [f"{asin}{ending}" for ending in ENDINGS]:
        if "\0" in candidate:
            return None, "blocked", "its image lies outside the folder"
        try:
            path = (inside / candidate).resolve()
            there = path.is_file()
        except (OSError, RuntimeError) as e:  # such as a name that is too long or a symlink loop
            return None, "missing", f"no such file among the images: {one_line(e, 100)}"
        if not path.is_relative_to(inside):
            return None, "blocked", "its image lies outside the folder"
        if there:
            return path, "ok", ""
    return None, "missing", one_line(f"no file {name or asin + '.*'} among the images", 200)
