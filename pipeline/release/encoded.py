"""Images and texts to vectors in the space of a released feature set, in memory; and the hashes of what goes in."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode import batching
from alignrec.pipeline.encode.folder import Facts
from alignrec.pipeline.encode.network import Loaded
from alignrec.pipeline.images.decode import Decoded, normalise
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.release.encoder import MOST_AT_A_TIME

BLOCK = 1024  # images read at a time


def text_sha256(text: str | None) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text and text.strip() else ""


def image_sha256(image: bytes | None) -> str:
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def hash_images(path: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of a file of stored images with `input_image_sha256`, the hash of what encoders read."""
    parts = []
    for part in io.read_slices(path, schemas.IMAGES, [*columns, "image"], BLOCK):
        hashes = pa.array([image_sha256(image.as_py()) for image in part["image"]], pa.string())
        parts.append(part.drop_columns(["image"]).append_column("input_image_sha256", hashes))
    return pa.concat_tables(parts)


def normalised(data: bytes, facts: Facts) -> Decoded:
    """Return an image file as the pipeline would have stored it, or why it cannot be used."""
    return normalise(data, facts.image_size, facts.image_quality, Images().max_pixels)


def vectors(
    loaded: Loaded, texts: Sequence[str], images: Sequence[bytes | None], done: Callable[[int], object] = int
) -> batching.Encoded:
    """Encode B items by the modalities that the feature set reads; texts may be empty, JPEGs None."""
    reads = loaded.facts.reads
    written = texts if "text" in reads else [""] * len(texts)
    shown = images if "image" in reads else [None] * len(images)
    size, workers = min(loaded.facts.batch_size, MOST_AT_A_TIME), os.cpu_count() or 1
    encoded = batching.encode(loaded.encoder, written, shown, size, done, workers)
    if encoded.halved.any():
        _warn(batching.HALVED)
    return encoded


@cache
def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
