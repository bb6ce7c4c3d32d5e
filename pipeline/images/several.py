"""Further images of items: column `more_images` of schema IMAGES_WITH_MORE."""

from __future__ import annotations

import io as memory
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.images.decode import Decoded

MORE = "more_images"
OUTCOME = ("status", "url", "sha256", "phash")  # what is counted of each further image
LOOK_PIXELS = 16  # side of the thumbnails by which images are compared
# mean difference of thumbnails, of 255, below which two files show the same: other sizes and
# qualities of a photo differ by less than 2
MAX_DIFFERENCE = 3.0
# Amazon's identifier of a photo; its files of all sizes share it
PHOTO_ID = re.compile(r"/images/I/([^/.]+)\.")

Candidate = TypeVar("Candidate")


def gather_images(
    candidates: Iterable[Candidate],
    read: Callable[[Candidate, Sequence[Decoded]], Decoded],  # gets the images so far
    most: int,
) -> Decoded | None:
    """Read candidates until `most` images are ok.

    Returns the first image, else the first failure; None without candidates. With `most` above 1,
    its `more` has all other outcomes, in order.
    """
    outcomes: list[Decoded] = []
    images: list[Decoded] = []
    for candidate in candidates:
        if len(images) == most:
            break
        outcome = read(candidate, images)
        outcomes.append(outcome)
        if outcome.status == "ok":
            images.append(outcome)

    if not outcomes:
        return None
    first = (images or outcomes)[0]
    if most == 1:
        return first
    return first._replace(more=tuple(outcome for outcome in outcomes if outcome is not first))


def mark_duplicate(outcome: Decoded, images: Sequence[Decoded]) -> Decoded:
    """Return an outcome, as a `duplicate` without image if it shows what one of `images` does."""
    if outcome.image is None or not images:
        return outcome
    look = _measure_look(outcome.image)
    for image in images:
        assert image.image is not None
        if np.abs(_measure_look(image.image) - look).mean() <= MAX_DIFFERENCE:
            reason = "looks like an earlier image of the item"
            return Decoded("duplicate", reason, sha256=outcome.sha256, url=outcome.url)
    return outcome


def _measure_look(image: bytes) -> np.ndarray:
    """Return a thumbnail of a stored image, float32 [LOOK_PIXELS, LOOK_PIXELS, 3]."""
    side = LOOK_PIXELS
    with Image.open(memory.BytesIO(image)) as opened:
        thumbnail = opened.convert("RGB").resize((side, side), Image.Resampling.BOX)
    return np.asarray(thumbnail, np.float32)


def schema_of(path: Path) -> pa.Schema:
    """Return the schema of a file of images: IMAGES, or IMAGES_WITH_MORE if it has that column."""
    with io.reraise_faults(path):
        names = pq.read_schema(path).names
    return schemas.IMAGES_WITH_MORE if MORE in names else schemas.IMAGES


def read_further(path: Path) -> Iterator[pa.Array]:
    """Yield the further images of a file's items that are ok, a row group at a time.

    Each is list<binary>, an empty list for an item without any; nothing is yielded for IMAGES.
    """
    if schema_of(path) is schemas.IMAGES:
        return
    for block in _read_blocks(path, ("status", "image")):
        flat = block.flatten()
        is_ok = pc.equal(flat.field("status"), "ok")
        items = pc.list_parent_indices(block).filter(is_ok)
        counts = np.bincount(items.to_numpy(), minlength=len(block))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        images = flat.field("image").filter(is_ok)
        yield pa.ListArray.from_arrays(pa.array(offsets), images)


def read_outcomes(path: Path) -> pa.Table:
    """Return the columns OUTCOME of all further images of a file."""
    fields = [schemas.IMAGES.field(name) for name in OUTCOME]
    schema = pa.schema([field.remove_metadata() for field in fields])
    if schema_of(path) is schemas.IMAGES:
        return schema.empty_table()

    tables = []
    for block in _read_blocks(path, OUTCOME):
        flat = block.flatten()
        arrays = [flat.field(name) for name in OUTCOME]
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _read_blocks(path: Path, names: tuple[str, ...]) -> Iterator[pa.Array]:
    """Yield fields of the further images, list<struct>, a row group at a time."""
    columns = [f"{MORE}.list.element.{name}" for name in names]
    with io.reraise_faults(path), pq.ParquetFile(path, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            column = file.read_row_group(number, columns)[MORE]
            yield from column.chunks


def photo_of(url: str) -> str:
    """Return what identifies a photo in an address: Amazon's identifier, or the whole address."""
    match = PHOTO_ID.search(url)
    return match[1] if match else url
