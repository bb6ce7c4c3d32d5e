"""Output of `alignrec embed`: vectors with hashes of their inputs, and rejected rows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.batching import ItemContent
from alignrec.pipeline.release.encoder import hash_images, text_sha256
from alignrec.pipeline.release.item_table import ItemTable
from alignrec.pipeline.runtime.layout import Layout

# image columns of rows whose image is not read
UNREAD_IMAGE = {
    "status": "missing",
    "reason": "this encoder reads no image",
    "input_image_sha256": "",
}


def write_embedded(
    folder: Path,
    layout: Layout,
    to: Path,
    record: dict[str, Any],
    table: ItemTable,
    shard_rows: int,
) -> tuple[int, int, int]:
    """Write the vectors with hashes of their inputs; return the numbers of items, images, texts."""
    made_by = io.record(io.shard(folder, "features", 0))
    record = record | {
        "encoder": made_by.get("encoder", {}),
        io.FINGERPRINT: io.fingerprint_of(made_by),
    }
    schema = schemas.embedded_items(io.width(folder), table.identifier)
    n_rows = 0
    n_images = 0
    n_texts = 0
    for number, rows in enumerate(_rechunk(_read_shards(folder, layout, schema), shard_rows)):
        io.write_table(rows, io.shard(to, "features", number), schema, record)
        n_rows += len(rows)
        n_images += pc.sum(rows["has_image"]).as_py() or 0
        n_texts += pc.sum(rows["has_text"]).as_py() or 0
    return n_rows, n_images, n_texts


def _read_shards(folder: Path, layout: Layout, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of each shard of a feature set with hashes of their inputs."""
    items = ItemContent.of(layout)
    feature_schema = schemas.features(io.width(folder))
    start = 0
    for number, path in enumerate(io.shards(folder, "features")):
        rows = io.read_table(path, feature_schema)
        texts = items.texts.slice(start, len(rows)).to_pylist()
        text_hashes = pa.array(map(text_sha256, texts), pa.string())
        if items.images:
            images = hash_images(items.images[number], ["status", "reason"])
        else:
            images = pa.table({name: [value] * len(rows) for name, value in UNREAD_IMAGE.items()})
        image_hashes = images["input_image_sha256"]

        columns = {
            schema.names[0]: rows["asin"],
            "has_image": rows["has_image"],
            "has_text": rows["has_text"],
            "vector": rows["vector"],
            "image_status": images["status"],
            "image_reason": images["reason"],
            "input_text_sha256": pc.if_else(rows["has_text"], text_hashes, ""),
            "input_image_sha256": pc.if_else(rows["has_image"], image_hashes, ""),
        }
        yield pa.table({name: columns[name] for name in schema.names})
        start += len(rows)


def _rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in tables of `rows` rows; the last has the rest."""
    pending: pa.Table | None = None
    for table in tables:
        pending = table if pending is None else pa.concat_tables([pending, table])
        while len(pending) >= rows:
            yield pending.slice(0, rows)
            pending = pending.slice(rows)
    if pending is not None and len(pending):
        yield pending


def write_rejects(folder: Path, to: Path, record: dict[str, Any]) -> Counter[str]:
    """Write the rejects of all blocks to one file, if there are any; return reason -> rows."""
    reasons = Counter[str]()
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        to.unlink(missing_ok=True)
        return reasons

    for path in paths:
        for reason in io.read_table(path, schemas.REJECTS)["reason"].to_pylist():
            is_repeated = reason.endswith("occurred before")  # the message names the identifier
            reasons["occurred before" if is_repeated else reason] += 1
    tables = (io.read_table(path, schemas.REJECTS) for path in paths)
    io.write_tables(tables, to, schemas.REJECTS, record)
    return reasons
