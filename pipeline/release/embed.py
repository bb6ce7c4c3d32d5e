"""`alignrec embed`: encode a table into a folder of Parquet files, one vector per row."""

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.encode import report_quality
from alignrec.pipeline.features.quality import READ
from alignrec.pipeline.images.decode import Decoded, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.io.text import reject_table
from alignrec.pipeline.release.choice import Choice
from alignrec.pipeline.release.encoder import encode_content, image_sha256, text_sha256
from alignrec.pipeline.release.item_file import ItemRow, cut_blocks, read_blocks
from alignrec.pipeline.release.item_table import ItemTable
from alignrec.pipeline.release.loading import Loaded
from alignrec.pipeline.runtime import engine, progress
from alignrec.pipeline.runtime.machine import versions
from alignrec.pipeline.runtime.run import ALTERED, Run

LABEL = "embed"  # of warnings and progress
ROWS_PER_CHECKPOINT = 256  # of an interrupted run: a minute at four rows per second
FACTS = "_embed.json"  # readers of Parquet folders ignore names that begin with _
STORED = {"size", "quality"}  # settings of `images` that encoded images depend on
UNREAD_IMAGE = Decoded("missing", "this encoder reads no image")
ItemPart = list[tuple[ItemRow, Decoded]]


class Summary(NamedTuple):
    """Row counts of an encoded table."""

    items: int  # written rows
    images: int  # written rows with an image
    texts: int  # written rows with a text
    rejects: Path  # table REJECTS, if rows were rejected
    rejected: Counter[str]  # reason -> rows


def embed(table: ItemTable, choice: Choice, to: Path) -> Summary:
    """Encode a table into a new folder, schema embedded(F).

    Rows that failed go to `<to>.rejects.parquet`.
    """
    lock = io.next_to(to, "lock")
    _require_writable(to)
    rejects = to.with_name(f"{to.name}.rejects.parquet")
    with FileLock(lock):
        try:
            _refuse_existing(to, rejects)
            return _embed_next_to(to, rejects, table, choice)
        finally:
            lock.unlink(missing_ok=True)


def _require_writable(to: Path) -> None:
    """Raise UserError unless a folder can be made next to `to`, which a lock would wait for."""
    if not to.name:
        raise UserError(f"--to {to}: this is the folder that you are in; name one inside it")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent):
            pass
    except OSError as e:
        raise UserError(
            f"--to {to}: no folder can be made there ({e.strerror}); name another"
        ) from None


def _refuse_existing(to: Path, rejects: Path) -> None:
    if not io.is_free(to):
        raise UserError(f"{to}: exists already; name another folder, or delete this one")
    if rejects.exists() and not (rejects.is_file() and io.record(rejects).get("stage") == "embed"):
        raise UserError(
            f"{rejects}: exists already, and is not of `embed`; move it, or name another folder"
        )


def _embed_next_to(to: Path, rejects: Path, table: ItemTable, choice: Choice) -> Summary:
    work = io.next_to(to, "parts")
    settings = {
        "encoder": choice.name,
        "made": choice.made,
        "columns": table.columns._asdict(),
        "images": choice.images.model_dump(include=STORED),
    }
    record: dict[str, Any] = {"stage": "embed", "params": settings, "versions": versions()}
    _resume(work, table, choice, record)

    shards = work / "rows"
    bar = progress.stage_bar(LABEL, hidden=False, unit="row")
    with bar, progress.print_heartbeat(LABEL, [bar]), choice.name_errors():
        loaded = choice.load()
        record[io.FINGERPRINT] = loaded.facts.fingerprint
        if loaded.facts.model:
            record["encoder"] = {"dim": loaded.encoder.width} | loaded.facts.model
        _write_shards(table, choice, loaded, work, record, bar.update)
    notes = report_quality(loaded.facts, shards, _warn)

    finished = work / "done"
    schema = schemas.embedded_items(loaded.encoder.width, table.identifier)
    counts = Counter[str]()
    parts = (io.read_table(path, schema) for path in io.shards(shards, "features"))
    for number, rows in enumerate(_rechunk(parts, choice.encode.shard_rows)):
        io.write_table(rows, io.shard(finished, "features", number), schema, record)
        counts["items"] += len(rows)
        for name in ("has_image", "has_text"):
            counts[name] += pc.sum(rows[name]).as_py()
    rejected = _write_rejects(work / "rejects", rejects, record)
    about = {"items": counts["items"], "rejected": rejected, "notes": notes}
    io.write_json(finished / FACTS, record | about)
    io.rename_folder(finished, to)
    shutil.rmtree(work)
    return Summary(counts["items"], counts["has_image"], counts["has_text"], rejects, rejected)


def _resume(work: Path, table: ItemTable, choice: Choice, record: dict[str, Any]) -> None:
    """Discard unfinished vectors of another table, encoder or image folder."""
    files = sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]
    images = str(table.images and table.images.absolute())
    key = Run.key([*files, *choice.files], record | {"images": images}, [__name__, *choice.modules])
    io.open_journal(work, key)
    for path in io.drop_unlisted(work):
        _warn(f"{path} {ALTERED}")


def _warn(message: str) -> None:
    print(printable(f"warning: {LABEL}: {message}"), file=sys.stderr, flush=True)


def _write_shards(
    table: ItemTable,
    choice: Choice,
    loaded: Loaded,
    work: Path,
    record: dict[str, Any],
    done: Callable[[int], object],
) -> None:
    """Write the missing shards of vectors, and invalid rows.

    Raises UserError if the table has no items.
    """
    images = choice.images if "image" in choice.reads else None
    if images is None:
        table = table._replace(columns=table.columns._replace(image=""))
    schema = schemas.embedded_items(loaded.encoder.width, table.identifier)
    rows = _read_rows(table, work / "rejects")
    try:
        for number in count():
            part = islice(rows, ROWS_PER_CHECKPOINT)
            path = io.shard(work / "rows", "features", number)
            if path.is_file():
                done(sum(1 for _ in part))
                continue
            items = [item for block in cut_blocks(part) for item in _decode(block, images)]
            if not items:
                break
            shard, about = _encode(items, loaded, schema, done)
            io.write_table(shard, path, schema, record | about)
        if number == 0:
            reason = _first_reject(work / "rejects")
            raise UserError(
                f"{table.path}: 0 items{reason}; give Parquet, CSV or JSON lines, an item a row"
            )
    except UserError:
        if not (work / "rows").is_dir():  # nothing to resume
            shutil.rmtree(work)
        raise


def _read_rows(table: ItemTable, rejects: Path) -> Iterator[ItemRow]:
    """Yield the items of a table, and write its invalid rows."""
    for number, (rows, rejected) in enumerate(read_blocks(table)):
        if rejected:
            raw = reject_table(table.path.name, rejected)
            io.write_table(raw, io.shard(rejects, "rejects", number), schemas.REJECTS)
        yield from rows


def _decode(rows: list[ItemRow], images: Images | None) -> ItemPart:
    def decode(row: ItemRow) -> Decoded:
        found = row.image
        if images is None or found is None:
            return UNREAD_IMAGE
        if found.image is None:
            return Decoded(found.status, found.reason)
        data = found.read(images.max_bytes)
        if data is None:
            return Decoded("too_large", f"more than {images.max_bytes:,} bytes")
        return normalise_image(data, images.size, images.quality, images.max_pixels)

    decoded = engine.in_threads(decode, rows)
    return [(row.without_image(), image) for row, image in zip(rows, decoded, strict=True)]


def _encode(
    items: ItemPart, loaded: Loaded, schema: pa.Schema, done: Callable[[int], object]
) -> tuple[pa.Table, dict[str, Any]]:
    """Return vectors with hashes of their inputs, and how much was read of the texts."""
    texts = [row.text for row, _ in items]
    images = [image.image for _, image in items]
    encoded = encode_content(loaded, texts, images, done)
    columns = {
        # lone surrogates cannot be stored
        schema.names[0]: [row.asin.encode(errors="replace").decode() for row, _ in items],
        "has_image": encoded.has_image,
        "has_text": encoded.has_text,
        "vector": io.vectors(encoded.vectors),
        "image_status": [image.status for _, image in items],
        "image_reason": [image.reason for _, image in items],
        "input_text_sha256": [
            text_sha256(text) if used else ""
            for text, used in zip(texts, encoded.has_text, strict=True)
        ],
        "input_image_sha256": [
            image_sha256(image) if used else ""
            for image, used in zip(images, encoded.has_image, strict=True)
        ],
    }
    table = pa.table({name: columns[name] for name in schema.names})
    return table, {} if encoded.reading is None else {READ: encoded.reading.facts()}


def _first_reject(folder: Path) -> str:
    for path in sorted(folder.glob("*.parquet")):
        rejects = io.read_table(path, schemas.REJECTS)
        return f"; row {rejects['line'][0]}: {rejects['reason'][0]}"
    return ""


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


def _write_rejects(folder: Path, to: Path, record: dict[str, Any]) -> Counter[str]:
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
