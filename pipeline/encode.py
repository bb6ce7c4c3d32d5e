"""Items -> feature tables: batches by what an item has and how long its text is, results in item order.

The order of rows never depends on batches. Their values do, in the last bits: a matrix product over more rows may add
up in another order, so batch_size and shard_rows change features by about 1e-6 of their length. With both fixed, a run
that was interrupted, resumed or repeated on the same machine gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.encoders.base import Encoder
from pipeline.errors import UserError


class Encoded(NamedTuple):
    """Features of some items."""

    vectors: np.ndarray
    """float32 [n, F]; zeros where there was neither image nor text"""
    has_image: np.ndarray
    """bool [n], an image went in"""
    has_text: np.ndarray
    """bool [n], a text went in"""


def encode(
    encoder: Encoder,
    texts: Sequence[str],
    images: Sequence[bytes | None],
    batch_size: int,
    done: Callable[[int], object],
) -> Encoded:
    """Encode items from what they have.

    Args:
        encoder: ready to use.
        texts: of each item; empty where it has none.
        images: JPEG of each item; None where it has none.
        batch_size: items a forward pass.
        done: called after each batch with its number of items.

    Raises:
        ValueError: the encoder gave a value that is not finite.
    """
    has_text = np.array([bool(text.strip()) for text in texts], bool)
    has_image = np.array([image is not None for image in images], bool)
    lengths = np.zeros(len(texts), np.int64)
    if has_text.any():
        lengths[has_text] = encoder.lengths([text for text in texts if text.strip()])
    out = np.zeros((len(texts), encoder.width), np.float32)
    for rows in batches(has_image, has_text, lengths, batch_size):
        first = rows[0]
        some_images = [image for i in rows if (image := images[i]) is not None] if has_image[first] else None
        some_texts = [texts[i] for i in rows] if has_text[first] else None
        out[rows] = encoder.encode(some_images, some_texts)
        done(len(rows))
    if not np.isfinite(out).all():
        raise ValueError(f"row {int((~np.isfinite(out).all(axis=1)).argmax())}: the encoder's vector is not finite")
    done(int((~has_image & ~has_text).sum()))
    return Encoded(out, has_image, has_text)


def batches(has_image: np.ndarray, has_text: np.ndarray, lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield rows that have the same modalities and about the same length, int64; rows that have neither are in none."""
    kind = 2 * has_image.astype(np.int64) + has_text
    order = np.lexsort((np.arange(len(kind)), lengths, kind))
    for k in (1, 2, 3):
        rows = order[kind[order] == k]
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def table(ids: pa.Table, found: Encoded) -> pa.Table:
    """Return rows of schema features(F); `ids` holds item_id and asin of the same items."""
    return _table(ids, found.vectors, pa.array(found.has_image), pa.array(found.has_text))


def imported(ids: pa.Table, vectors: np.ndarray) -> pa.Table:
    """Return rows of schema features(F) for vectors that came ready: nobody knows what went into them."""
    unknown = pa.nulls(len(ids), pa.bool_())
    return _table(ids, vectors, unknown, unknown)


def _table(ids: pa.Table, vectors: np.ndarray, has_image: pa.Array, has_text: pa.Array) -> pa.Table:
    columns = {"item_id": ids["item_id"], "asin": ids["asin"], "has_image": has_image, "has_text": has_text}
    return pa.table(columns | {"vector": io.vectors(vectors)})


def pictures(paths: Sequence[Path], start: int, stop: int) -> list[bytes | None]:
    """Return the JPEGs of items start .. stop-1, None where an item has none; reads only the shards that hold them."""
    found: list[bytes | None] = []
    first = 0
    for path in paths:
        rows = pq.read_metadata(path).num_rows
        low, high = max(start, first), min(stop, first + rows)
        if low < high:
            column = io.read_table(path, schemas.IMAGES, ["image"])["image"]
            found += column.slice(low - first, high - low).to_pylist()
        first += rows
    return found


def ready(path: Path, start: int, stop: int) -> np.ndarray:
    """Read rows start .. stop-1 of a feature file that was made elsewhere: float32 [n, F].

    Raises:
        UserError: a value is not finite.
    """
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop].astype(np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise UserError(f"{path}: row {start + int(bad.argmax())}: a value is not finite; mend the file")
    return vectors
