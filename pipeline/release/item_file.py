"""Items of a table to embed: the rows of Parquet, CSV or JSON lines."""

import hashlib
from collections.abc import Iterable, Iterator
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
from alignrec.pipeline.io.parquet import decode_binary, read_batches
from alignrec.pipeline.io.sql import identifier_of
from alignrec.pipeline.io.text import MAX_LINE_BYTES, MAX_RAW_BYTES, RejectedRow
from alignrec.pipeline.release.item_images import FoundImage, find_image
from alignrec.pipeline.release.item_table import TABULAR, TEXT, Columns, ItemTable, source_reader
from alignrec.pipeline.sources.base import Product, as_json, as_text, end_sentence
from alignrec.pipeline.sources.tabular import Tabular, TabularSource
from alignrec.pipeline.vectors.identifiers import IDENTIFIER_COLUMNS
from alignrec.schemas import TEXT_FIELDS

TABLE_BLOCK_ROWS = 1024
BYTES_PER_BLOCK = 1 << 26  # of texts and images, above which a block ends
Cells = dict[str, Any]


class ItemRow(NamedTuple):
    """One item of a table: identifier, text and image."""

    asin: str
    text: str
    image: FoundImage | None  # None once it was decoded

    @property
    def n_bytes(self) -> int:
        """Approximate size in memory."""
        image = self.image.image if self.image else None
        return len(self.text) + (len(image) if isinstance(image, bytes) else 0)

    def without_image(self) -> Self:
        return self._replace(image=None)


def read_blocks(table: ItemTable) -> Iterator[tuple[list[ItemRow], list[RejectedRow]]]:
    """Yield blocks of items and invalid rows, in order."""
    parser = _RowParser(table)
    rows: list[ItemRow] = []
    rejects: list[RejectedRow] = []
    n_bytes = 0
    for number, raw in enumerate(_read_raw(table.path, table.columns), 1):
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
            raise UserError(
                f"{file}: no column {', '.join(IDENTIFIER_COLUMNS)}; "
                "name that of the identifiers by --column item=NAME"
            )

        useful = columns.useful(present)
        if not columns.text:
            useful.append(TEXT)
            if source_reader(columns.kind) is not None:
                useful = present  # its reader looks for fields of its own
        names = [name for name in dict.fromkeys(useful) if name in present]
        refuse_repeated(file, present, names)
        for batch in read_batches(file, names):
            try:
                yield from _batch_rows(batch, columns.image)
            except OverflowError as e:  # such as a date after the year 9999
                raise UserError(
                    f"{file}: {one_line(e, 80)}; name the columns of text by --text"
                ) from None


def _batch_rows(batch: pa.RecordBatch, image: str) -> list[bytes | Cells]:
    """Return the rows of a batch; one that is not UTF-8 as a line that cannot be read."""
    try:
        return list(decode_binary(batch, image).to_pylist())
    except ValueError as e:
        if len(batch) == 1:
            return [mark_unreadable("not UTF-8" if isinstance(e, UnicodeDecodeError) else str(e))]

    half = len(batch) // 2
    return _batch_rows(batch.slice(0, half), image) + _batch_rows(batch.slice(half), image)


class _RowParser:
    """Parser of the rows of one table, which remembers their identifiers."""

    def __init__(self, table: ItemTable) -> None:
        self._columns = table.columns
        self._images = table.images
        self._digests: set[bytes] = set()  # of identifiers: 16 bytes each, to save memory
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
        values = (value for value in map(cells.get, names) if isinstance(value, (str, int, float)))
        asin = next(filter(None, map(identifier_of, values)), None)
        if asin is None:
            expected = " or ".join(names) or "a column of that name, such as asin, sku or id"
            raise ValueError(f"no identifier in {expected}")

        digest = hashlib.blake2b(asin.encode(errors="replace"), digest_size=16).digest()
        if digest in self._digests:
            raise ValueError(f"{one_line(asin, 100)!r} occurred before")

        image = FoundImage(None, "missing", "the encoder reads no image")
        if columns.image:
            image = find_image(asin, self._images, cells.get(columns.image))
        text = self._compose(cells)
        if len(text) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"text of more than {MAX_TEXT_CHARACTERS:,} characters")

        self._digests.add(digest)
        return ItemRow(asin, text, image)

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
    return " ".join(map(end_sentence, stripped))
