"""New items -> vectors in the space of a released feature set, by the very encoder that made it.

Blocks of lines are encoded one after the other. Each finished block is kept beside the target, so a killed run goes on
after it; the target appears when all are done.
"""

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import engine, io
from pipeline.encode import batching
from pipeline.errors import UserError, printable
from pipeline.images.decode import Decoded, failed, normalise
from pipeline.images.params import Images
from pipeline.release import encoder, item_file, semantic_ids
from pipeline.release import manifest as manifests
from pipeline.release.build import image_sha256, text_sha256
from pipeline.release.encoder import Loaded
from pipeline.release.item_file import Row
from pipeline.semantic_ids import files
from pipeline.sources import lines
from pipeline.versions import versions


class Summary(NamedTuple):
    """What came of a file of items."""

    items: int
    """rows written"""
    images: int
    """of them, with an image"""
    texts: int
    """of them, with a text"""
    rejects: Path | None
    """table REJECTS of lines that were not used; None: there were none"""
    rejected: int
    """lines in it"""


class Numbers:
    """Counts items of equal codes on from those of a release, so that a new item's ID is no other item's."""

    def __init__(self, released: pa.Table) -> None:
        """Count the items of a table of semantic IDs."""
        self._next = Counter(codes.tobytes() for codes in files.matrix(released)[1])

    def counted(self, table: pa.Table) -> pa.Table:
        """Return new items with their suffix: how many items before have the same codes, in the release and here."""
        rows, codes = files.matrix(table)
        suffix = np.zeros(len(table), np.int32)
        for row, code in zip(rows, codes, strict=True):  # one by one, as each counts for those that follow
            suffix[row] = self._next[code.tobytes()]
            self._next[code.tobytes()] += 1
        at = table.column_names.index("suffix")
        return table.set_column(at, "suffix", pa.array(suffix, mask=~table["codes"].is_valid().to_numpy()))


def embed(
    release: Path,
    name: str,
    items: Path,
    images: Path | None,
    to: Path,
    done: Callable[[int], object] = int,
    codes: str | None = None,
) -> Summary:
    """Encode items with an encoder of a release.

    Args:
        release: its folder, verified by the caller.
        items: see `item_file`.
        images: folder of image files; None: there are none.
        to: Parquet file to write, schema embedded(F, L), a row an item; lines that were not used go to
            `<stem>.rejects.parquet` beside it.
        done: called after each batch with its number of items.
        codes: method whose released codebooks code the items too.

    Raises:
        UserError: `to` exists, no line holds an item, the release has no such encoder or codebooks, or see
            `item_file.blocks`.
    """
    if to.exists():
        raise UserError(f"{to}: exists already; name another file, or delete this one")
    blocks = item_file.blocks(items, images)
    coded = semantic_ids.load(release, name, codes) if codes is not None else None
    loaded = encoder.load(release, name)
    work, count = _work(release, name, items, images, to, codes), 0
    schema = schemas.embedded(loaded.encoder.width, coded.facts.levels if coded else 0)
    for number, (rows, rejects) in enumerate(blocks):
        if not _rejects(work, number).exists() or (rows and not _part(work, number).exists()):
            if rows:
                io.write_table(_coded(_encoded(loaded, rows, count, done), coded), _part(work, number), schema)
            unread = lines.rejects(items.name, ((one.line.number, one.reason, one.line.raw) for one in rejects))
            io.write_table(unread, _rejects(work, number), schemas.REJECTS)  # last: the block is done
        count += len(rows)
    record = {"stage": "embed", "params": {"encoder": name} | loaded.facts.settings, "versions": versions()}
    return _joined(work, items, to, schema, record, _numbers(release, name, codes, coded))


def _numbers(release: Path, name: str, method: str | None, coded: files.Coded | None) -> Numbers | None:
    """Return what numbers new items that share codes, where a released method does that."""
    if coded is None or coded.facts.collisions != "suffix":
        return None
    folder = semantic_ids.folder_of(release, manifests.load(release), name, method)
    return Numbers(io.read_table(folder / files.IDS, schemas.semantic_ids(coded.facts.levels)))


def normalised(data: bytes, facts: encoder.Facts) -> Decoded:
    """Return an image file as the pipeline would have stored it, or why it cannot be used."""
    return normalise(data, facts.image_size, facts.image_quality, Images().max_pixels)


def vectors(
    loaded: Loaded, texts: Sequence[str], images: Sequence[bytes | None], done: Callable[[int], object] = int
) -> batching.Encoded:
    """Encode B items by the modalities that the feature set reads; texts may be empty, JPEGs None."""
    reads, none = loaded.facts.reads, [None] * len(images)
    visible = texts if "text" in reads else [""] * len(texts)
    size, workers = min(loaded.facts.batch_size, encoder.MOST_AT_A_TIME), os.cpu_count() or 1
    made = batching.encode(loaded.encoder, visible, images if "image" in reads else none, size, done, workers)
    if made.halved.any():
        _warn(batching.HALVED)
    return made


@cache
def _warn(line: str) -> None:
    """Print a warning, once."""
    print(f"warning: {line}", file=sys.stderr)


def _encoded(loaded: Loaded, rows: Sequence[Row], start: int, done: Callable[[int], object]) -> pa.Table:
    """Return the rows as schema embedded(F), numbered from `start`."""
    decoded = list(engine.threads(lambda row: _decoded(row, loaded.facts), rows))
    texts = [row.text.encode(errors="replace").decode() for row in rows]
    result = vectors(loaded, texts, [image.image for image in decoded], done)
    text_in = [t if there else "" for t, there in zip(texts, result.has_text, strict=True)]
    image_in = [d.image if there else None for d, there in zip(decoded, result.has_image, strict=True)]
    return pa.table(
        {
            "item_id": pa.array(range(start, start + len(rows)), pa.int32()),
            "asin": pa.array([row.asin for row in rows], pa.string()),
            "has_image": pa.array(result.has_image),
            "has_text": pa.array(result.has_text),
            "image_status": pa.array([image.status for image in decoded], pa.string()),
            "image_reason": pa.array([image.reason for image in decoded], pa.string()),
            "input_text_sha256": pa.array(map(text_sha256, text_in), pa.string()),
            "input_image_sha256": pa.array(map(image_sha256, image_in), pa.string()),
            "vector": io.vectors(result.vectors),
        }
    )


def _coded(table: pa.Table, coded: files.Coded | None) -> pa.Table:
    """Return a block with the codes of its vectors; `suffix` is null, as `Numbers` gives it when all are there."""
    if coded is None:
        return table
    x = io.matrix(table["vector"])
    codes = semantic_ids.encoded(coded.method, x, coded.facts.levels)
    cosines = pa.array(semantic_ids.cosines(coded.method, x, codes), mask=codes[:, 0] == semantic_ids.NONE)
    columns = {"codes": semantic_ids.column(codes), "suffix": pa.nulls(len(table), pa.int32()), "cosine": cosines}
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _decoded(row: Row, facts: encoder.Facts) -> Decoded:
    if row.image is None:
        return failed(row.status, row.reason)
    if (size := row.image.stat().st_size) > Images().max_bytes:  # refused unread
        return failed("too_large", f"{size} bytes")
    return normalised(row.image.read_bytes(), facts)


def _work(release: Path, name: str, items: Path, images: Path | None, to: Path, codes: str | None) -> Path:
    """Return the folder of finished blocks, emptied if they are of another release, encoder, file or folder.

    Blocks that were altered are deleted, so that they are made again.
    """
    work = to.absolute().with_name(f".{to.name}.parts")
    hashes = [io.sha256(release / manifests.NAME), io.sha256(items)]
    facts = [*hashes, name, str(images and images.absolute()), versions(), codes]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if not io.begun(work, key):
        io.begin(work, key)
    for path in io.delete_unvouched(work):
        print(printable(f"warning: {path} was altered after it was made; it is made again"), file=sys.stderr)
    return work


def _joined(
    work: Path,
    items: Path,
    to: Path,
    schema: pa.Schema,
    record: dict[str, Any],
    numbers: Numbers | None,
) -> Summary:
    """Write the finished blocks as one file, with suffixes if there are `numbers`, and the rejects as another."""
    parts, rejects = sorted(work.glob("features-*.parquet")), sorted(work.glob("rejects-*.parquet"))
    rejected = sum(pq.read_metadata(path).num_rows for path in rejects)
    if not parts:
        why = next((f"; line {r['line']}: {r['reason']}" for p in rejects for r in pq.read_table(p).to_pylist()), "")
        shutil.rmtree(work)
        raise UserError(f"{items}: 0 items{why}; give JSON lines or CSV, an item a line")
    aside = to.with_name(f"{to.stem}.rejects.parquet")
    if rejected:
        io.write_tables((io.read_table(p, schemas.REJECTS) for p in rejects), aside, schemas.REJECTS, record)
    tables = (io.read_table(p, schema) for p in parts)
    io.write_tables(map(numbers.counted, tables) if numbers else tables, to, schema, record)
    shutil.rmtree(work)
    flags = pq.read_table(to, columns=["has_image", "has_text"], partitioning=None)
    images, texts = (pc.sum(flags[column]).as_py() for column in ("has_image", "has_text"))
    return Summary(len(flags), images, texts, aside if rejected else None, rejected)


def _part(work: Path, number: int) -> Path:
    return io.shard(work, "features", number)


def _rejects(work: Path, number: int) -> Path:
    return io.shard(work, "rejects", number)
