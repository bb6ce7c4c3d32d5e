"""A table -> what the stage `encode` reads: items, texts, images as the stage `images` stores them; and the rejects.

Files of images that are there are kept, so that a killed run does not decode them twice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.embed.work import Work
from pipeline.errors import UserError
from pipeline.images.decode import Decoded, failed, normalise
from pipeline.images.params import Images
from pipeline.items.parse import Reject
from pipeline.release import item_file
from pipeline.release.item_file import Columns, Row
from pipeline.sources import lines

HELD = 1024  # rejects in memory


class Table(NamedTuple):
    """Where rows come from."""

    path: Path
    images: Path | None  # folder
    columns: Columns


class _Rejects:
    """Rows that were not used, in files of HELD; counted by reason."""

    def __init__(self, work: Work, file: str) -> None:
        self._work, self._file = work, file
        self._held: list[Reject] = []
        self._parts = 0
        self.reasons: Counter[str] = Counter()
        self.first = ""

    def add(self, rejects: Sequence[Reject]) -> None:
        for one in rejects:
            self.first = self.first or f"row {one.line.number}: {one.reason}"
            self.reasons["occurred before" if one.reason.endswith("occurred before") else one.reason] += 1
        self._held += rejects
        if len(self._held) >= HELD:
            self.flush()

    def flush(self) -> None:
        rows = lines.rejects(self._file, ((one.line.number, one.reason, one.line.raw) for one in self._held))
        io.write_table(rows, io.shard(self._work.rejects, "rejects", self._parts), schemas.REJECTS)
        self._held, self._parts = [], self._parts + 1


def prepare(table: Table, work: Work, images: Images | None, shard_rows: int) -> Counter[str]:
    """Lay out a table for `encode`; return how many rows were not used, by reason.

    Args:
        images: how they are stored; None: the encoder reads none.

    Raises:
        UserError: no row holds an item, or see `item_file.blocks`.
    """
    rejects = _Rejects(work, table.path.name)
    columns = table.columns if images is not None else table.columns._replace(image="")

    def rows() -> Iterator[Row]:
        for found, unused in item_file.blocks(table.path, table.images, columns):
            rejects.add(unused)
            yield from found

    def tables() -> Iterator[pa.Table]:
        every, start, shards = rows(), 0, 0
        while shard := list(islice(every, shard_rows)):
            if images is not None:
                _write_images(shard, work, images, start, shards)
            for first in range(0, len(shard), io.PART):
                yield _items(shard[first : first + io.PART], start + first)
            start, shards = start + len(shard), shards + 1

    layout = work.layout
    io.write_tables(tables(), layout.items, schemas.ITEMS, work.record)
    rejects.flush()
    if not io.rows([layout.items]):
        why = f"; {rejects.first}" if rejects.first else ""
        raise UserError(f"{table.path}: 0 items{why}; give Parquet, CSV or JSON lines, an item a row")
    ids = (part.select(schemas.ITEM_IDS.names) for part in io.read_tables(layout.items, schemas.ITEMS))
    io.write_json(layout.sources, [])
    io.write_json(work.rejected, rejects.reasons)
    io.write_tables(ids, layout.item_ids, schemas.ITEM_IDS, work.record)  # last: the table is laid out
    return rejects.reasons


def _items(rows: Sequence[Row], start: int) -> pa.Table:
    n, texts = len(rows), [row.text.encode(errors="replace").decode() for row in rows]
    blank = pa.array([""] * n, pa.string())
    nothing = {name: pa.array([[]] * n, pa.list_(pa.string())) for name in ("categories", "image_urls")}
    filled = {
        "item_id": pa.array(range(start, start + n), pa.int32()),
        "asin": pa.array([row.asin.encode(errors="replace").decode() for row in rows], pa.string()),
        "text": pa.array(texts, pa.string()),
        "text_status": pa.array(["ok" if text.strip() else "empty" for text in texts], pa.string()),
        "tokens": pa.array([len(text.split()) for text in texts], pa.int32()),
        "extra": pa.array(["{}"] * n, pa.string()),
        **{name: values.cast(schemas.ITEMS.field(name).type) for name, values in nothing.items()},
    }
    return pa.table({name: filled.get(name, blank) for name in schemas.ITEMS.names})


def _write_images(rows: Sequence[Row], work: Work, params: Images, start: int, number: int) -> None:
    path = io.shard(work.layout.images, "images", number)
    if path.is_file():
        return

    def tables() -> Iterator[pa.Table]:
        for first in range(0, len(rows), item_file.BLOCK):
            block = rows[first : first + item_file.BLOCK]
            decoded = list(engine.threads(lambda row: _decoded(row, params), block))
            yield _images(block, decoded, start + first)

    stored = {"params": params.model_dump(include={"size", "quality"})}  # as the stage `images` records them
    io.write_tables(tables(), path, schemas.IMAGES, work.record | stored)


def _images(rows: Sequence[Row], decoded: Sequence[Decoded], start: int) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array(range(start, start + len(rows)), pa.int32()),
            "asin": pa.array([row.asin.encode(errors="replace").decode() for row in rows], pa.string()),
            "status": pa.array([one.status for one in decoded], pa.string()),
            "reason": pa.array([one.reason for one in decoded], pa.string()),
            "url": pa.array([""] * len(rows), pa.string()),
            "image": pa.array([one.image for one in decoded], pa.binary()),
            "width": pa.array([one.width for one in decoded], pa.int32()),
            "height": pa.array([one.height for one in decoded], pa.int32()),
            "sha256": pa.array([one.sha256 for one in decoded], pa.string()),
            "phash": pa.array([one.phash for one in decoded], pa.uint64()),
        }
    )


def _decoded(row: Row, params: Images) -> Decoded:
    if row.image is None:
        return failed(row.status, row.reason)
    if (data := row.read(params.max_bytes)) is None:
        return failed("too_large", f"more than {params.max_bytes:,} bytes")
    return normalise(data, params.size, params.quality, params.max_pixels)


def files(table: Table) -> list[Path]:
    return sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]


def rejected(work: Work, record: dict[str, object], to: Path) -> Path | None:
    """Write the rejects as one table next to the vectors; return its path, None where there are none."""
    parts = sorted(work.rejects.glob("rejects-*.parquet"))
    if not io.rows(parts):
        return None
    tables = chain.from_iterable(io.read_tables(part, schemas.REJECTS) for part in parts)
    io.write_tables(tables, to, schemas.REJECTS, record)
    return to
