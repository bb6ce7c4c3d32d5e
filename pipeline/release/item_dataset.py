"""A table of items to embed as the files of a dataset: items, images and rejects."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images import fetcher
from alignrec.pipeline.images.decode import Decoded, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import reject_table
from alignrec.pipeline.release.item_file import ItemRow, cut_blocks, read_blocks
from alignrec.pipeline.release.item_table import ItemTable
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import Layout

STORED = {"size", "quality"}  # settings of `images` that stored images depend on


def write_dataset(
    table: ItemTable,
    layout: Layout,
    images: Images | None,
    shard_rows: int,
    record: dict[str, Any],
) -> None:
    """Write the items, images (unless None) and rejects of a table, unless done before.

    Raises UserError if the table has no items.
    """
    if layout.item_ids.is_file():  # written last, as it marks the table as complete
        return
    if images is None:
        table = table._replace(columns=table.columns._replace(image=""))

    rejects = layout.root / "rejects"
    try:
        rows = _read_rows(table, rejects)
        shards = _write_images(rows, layout, images, shard_rows, record)
        io.write_tables(shards, layout.items, schemas.ITEMS, record)
        if not io.rows([layout.items]):
            reason = _first_reject(rejects)
            raise UserError(
                f"{table.path}: 0 items{reason}; give Parquet, CSV or JSON lines, an item a row"
            )
    except UserError:
        shutil.rmtree(layout.root)  # nothing to resume
        raise

    items = io.read_tables(layout.items, schemas.ITEMS)
    ids = (part.select(schemas.ITEM_IDS.names) for part in items)
    io.write_tables(ids, layout.item_ids, schemas.ITEM_IDS, record)


def _read_rows(table: ItemTable, rejects: Path) -> Iterator[ItemRow]:
    """Yield the items of a table, and write its invalid rows."""
    for number, (rows, rejected) in enumerate(read_blocks(table)):
        if rejected:
            raw = reject_table(table.path.name, rejected)
            io.write_table(raw, io.shard(rejects, "rejects", number), schemas.REJECTS)
        yield from rows


def _write_images(
    rows: Iterator[ItemRow],
    layout: Layout,
    images: Images | None,
    shard_rows: int,
    record: dict[str, Any],
) -> Iterator[pa.Table]:
    """Write the images of items, unless `images` is None, and yield tables of the items."""
    n_items = 0
    for n_shards, first in enumerate(rows):
        rows_of_shard = chain([first], islice(rows, shard_rows - 1))
        path = io.shard(layout.images, "images", n_shards)
        shard: list[ItemRow] = []
        if images is not None and not path.is_file():
            # recorded as by stage `images`
            params = images.model_dump(include=STORED)
            decoded = _decode_images(rows_of_shard, n_items, images, shard)
            io.write_tables(decoded, path, schemas.IMAGES, record | {"params": params})
        else:
            shard += (row.without_image() for row in rows_of_shard)

        items = _item_table(shard, n_items)
        for start in range(0, len(shard), io.PART):
            yield items.slice(start, io.PART)
        n_items += len(shard)


def _first_reject(folder: Path) -> str:
    for path in sorted(folder.glob("*.parquet")):
        rejects = io.read_table(path, schemas.REJECTS)
        return f"; row {rejects['line'][0]}: {rejects['reason'][0]}"
    return ""


def _item_table(rows: Sequence[ItemRow], start: int) -> pa.Table:
    # lone surrogates cannot be stored
    texts = [row.text.encode(errors="replace").decode() for row in rows]
    columns: dict[str, Sequence[object]] = {
        "item_id": range(start, start + len(rows)),
        "asin": [row.asin.encode(errors="replace").decode() for row in rows],
        "text": texts,
        "text_status": ["ok" if text.strip() else "empty" for text in texts],
        "tokens": [len(text.split()) for text in texts],
        "extra": ["{}"] * len(rows),
        "categories": [[]] * len(rows),
        "image_urls": [[]] * len(rows),
    }
    blank = [""] * len(rows)
    arrays = {
        field.name: pa.array(columns.get(field.name, blank), field.type) for field in schemas.ITEMS
    }
    return pa.table(arrays)


def _decode_images(
    rows: Iterable[ItemRow],
    start: int,
    params: Images,
    seen: list[ItemRow],
) -> Iterator[pa.Table]:
    """Yield the images of rows, a block at a time; add the rows to `seen`, without the images.

    `start` is the item id of the first row.
    """

    def decode(row: ItemRow) -> Decoded:
        found = row.image
        assert found is not None
        if found.image is None:
            return Decoded(found.status, found.reason)
        data = found.read(params.max_bytes)
        if data is None:
            return Decoded("too_large", f"more than {params.max_bytes:,} bytes")
        return normalise_image(data, params.size, params.quality, params.max_pixels)

    for block in cut_blocks(rows):
        decoded = list(engine.in_threads(decode, block))
        plain = [row.without_image() for row in block]
        items = _item_table(plain, start + len(seen))
        seen += plain
        yield fetcher.image_table(items, decoded)
