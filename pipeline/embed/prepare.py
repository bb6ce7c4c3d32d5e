"""A table -> inputs of the stage `encode`: items, texts, images as the stage `images` stores them; and the rejects."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import engine, io
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.images import fetcher
from alignrec.pipeline.images.decode import Decoded, normalise
from alignrec.pipeline.images.fetcher import Result
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.items.parse import Reject
from alignrec.pipeline.release import item_file
from alignrec.pipeline.release.item_file import Columns, Row
from alignrec.pipeline.sources import lines

DATASET = "table"  # what a table is called in the folder
HELD = 1024  # rejects in memory


class Table(NamedTuple):
    """Where rows come from."""

    path: Path
    images: Path | None  # folder
    columns: Columns


@dataclass(frozen=True)
class Work:
    """The folder of unfinished vectors, laid out as the outputs of a dataset, so that `encode` works in it."""

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)  # provenance of its tables

    @property
    def layout(self) -> Layout:
        return Layout(self.folder, DATASET)

    @property
    def done(self) -> Path:
        return self.folder / "done"

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects"

    @property
    def rejected(self) -> Path:
        return self.rejects / "rejected.json"


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


def prepare(table: Table, work: Work, images: Images | None, shard_rows: int) -> None:
    """Lay out a table for `encode`, without images if `images` is None; UserError: no row has an item."""
    rejects, layout = _Rejects(work, table.path.name), work.layout
    columns = table.columns if images is not None else table.columns._replace(image="")

    def rows() -> Iterator[Row]:
        for found, unused in item_file.blocks(table.path, table.images, columns):
            rejects.add(unused)
            yield from found

    def tables() -> Iterator[pa.Table]:
        every, start, shards = rows(), 0, 0
        while shard := list(islice(every, shard_rows)):
            path = io.shard(layout.images, "images", shards)
            if images is not None and not path.is_file():
                _write_images(shard, work, images, start, path)
            for first in range(0, len(shard), io.PART):
                yield _items(shard[first : first + io.PART], start + first)
            start, shards = start + len(shard), shards + 1

    io.write_tables(tables(), layout.items, schemas.ITEMS, work.record)
    rejects.flush()
    if not io.rows([layout.items]):
        why = f"; {rejects.first}" if rejects.first else ""
        raise UserError(f"{table.path}: 0 items{why}; give Parquet, CSV or JSON lines, an item a row")
    ids = (part.select(schemas.ITEM_IDS.names) for part in io.read_tables(layout.items, schemas.ITEMS))
    io.write_json(layout.sources, [])
    io.write_json(work.rejected, rejects.reasons)
    io.write_tables(ids, layout.item_ids, schemas.ITEM_IDS, work.record)  # last: the table is laid out


def _items(rows: Sequence[Row], start: int) -> pa.Table:
    n, texts = len(rows), [row.text.encode(errors="replace").decode() for row in rows]
    filled: dict[str, Sequence[object]] = {
        "text": texts,
        "text_status": ["ok" if text.strip() else "empty" for text in texts],
        "tokens": [len(text.split()) for text in texts],
        "extra": ["{}"] * n,
        "categories": [[]] * n,
        "image_urls": [[]] * n,
    }
    ids = _ids(rows, start)
    columns = {
        f.name: pa.array(filled.get(f.name, [""] * n), f.type) for f in schemas.ITEMS if f.name not in ids.schema.names
    }
    return pa.table({name: ids[name] for name in ids.schema.names} | columns).select(schemas.ITEMS.names)


def _ids(rows: Sequence[Row], start: int) -> pa.Table:
    asins = [row.asin.encode(errors="replace").decode() for row in rows]
    return pa.table(
        {"item_id": pa.array(range(start, start + len(rows)), pa.int32()), "asin": pa.array(asins, pa.string())}
    )


def _write_images(rows: Sequence[Row], work: Work, params: Images, start: int, path: Path) -> None:
    def tables() -> Iterator[pa.Table]:
        for first in range(0, len(rows), item_file.BLOCK):
            block = rows[first : first + item_file.BLOCK]
            decoded = engine.threads(lambda row: _decoded(row, params), block)
            yield fetcher.table(_ids(block, start + first), [Result(one, "") for one in decoded])

    stored = {"params": params.model_dump(include={"size", "quality"})}  # as the stage `images` records them
    io.write_tables(tables(), path, schemas.IMAGES, work.record | stored)


def _decoded(row: Row, params: Images) -> Decoded:
    if row.image is None:
        return Decoded(row.status, row.reason)
    if (data := row.read(params.max_bytes)) is None:
        return Decoded("too_large", f"more than {params.max_bytes:,} bytes")
    return normalise(data, params.size, params.quality, params.max_pixels)


def rejected(work: Work, to: Path) -> Path | None:
    parts = sorted(work.rejects.glob("rejects-*.parquet"))
    if not io.rows(parts):
        return None
    tables = chain.from_iterable(io.read_tables(part, schemas.REJECTS) for part in parts)
    io.write_tables(tables, to, schemas.REJECTS, work.record)
    return to
