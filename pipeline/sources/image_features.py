"""Feature files that come with data: of Amazon's 2014 data, and somebody's `.npy` files.

The first are CNN features, records of a 10-byte ASIN and 4096 float32, little-endian (jmcauley.ucsd.edu/data/amazon,
"visual features"). A file of all products of a category is far larger than memory (Electronics: 8 GB), so it is read in
blocks, and only what belongs to the dataset's items is kept. Of arrays in `.npy` files nothing is run, and nothing is
reserved that their bytes do not fill.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.errors import UserError, one_line
from pipeline.sources.lines import unpacked

ASIN, WIDTH = 10, 4096  # bytes, numbers
RECORD = ASIN + 4 * WIDTH  # bytes
BLOCK = 512  # records, 8 MiB
FEATURE = "feature:"  # a feature file's role is this and the feature set's name

ROWS = "feature_rows"  # role of the mapping file that says which item each row of the .npy files is


def matches(path: Path) -> bool:
    """Return whether a file's name has the ending of such files."""
    return path.name.endswith((".b", ".b.gz"))


def read(path: Path, asins: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of n items: float32 [n, 4096], of each its first record, and which there are, bool [n].

    UserError, with the offset, if the file ends inside a record, or a wanted vector is not finite.
    """
    place = {asin.encode(): i for i, asin in enumerate(asins)}
    vectors, present = np.zeros((len(asins), WIDTH), np.float32), np.zeros(len(asins), bool)
    for offset, record in _records(path):
        i = place.get(bytes(record[:ASIN]))
        if i is None or present[i]:
            continue
        vectors[i], present[i] = np.frombuffer(record, "<f4", offset=ASIN), True
        if not np.isfinite(vectors[i]).all():
            raise UserError(f"{path}: the record of {asins[i]} at byte {offset:,} has a value that is not finite")
    return vectors, present


def _records(path: Path) -> Iterator[tuple[int, memoryview]]:
    """Yield each record and its offset."""
    offset = 0
    with unpacked(path) as f:
        while block := _block(f):
            for start in range(0, len(block) - RECORD + 1, RECORD):
                yield offset + start, memoryview(block)[start : start + RECORD]
            if rest := len(block) % RECORD:
                raise UserError(
                    f"{path}: cut off at byte {offset + len(block):,}, {rest:,} bytes into a record of {RECORD:,} "
                    f"(ASIN and {WIDTH} float32); download it again"
                )
            offset += len(block)


def _block(f: BinaryIO) -> bytes:
    """Read BLOCK records, or what is left: an unpacking reader may give less at a time."""
    parts, size = [], 0
    while size < BLOCK * RECORD and (part := f.read(BLOCK * RECORD - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def check_features(raw: Mapping[str, Path], items: int) -> None:
    """Refuse a .npy feature file that does not have one row of numbers for each of `items`."""
    for role, path in raw.items():
        if not role.startswith(FEATURE) or matches(path):
            continue
        array = opened(path)
        if array.ndim != 2 or array.shape[0] != items or not array.shape[1] or array.dtype.kind not in "fiu":
            raise UserError(f"{path}: is {array.dtype} {array.shape}, expected numbers [{items}, width], a row an item")


HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # which differs in the encoding of names of fields
}
"""version of the format -> what reads a header"""


def opened(path: Path) -> np.ndarray:
    """Return the array of a `.npy` file, mapped into memory; UserError if it is cut off, no array, or of objects."""
    try:
        with path.open("rb") as f:
            version = np.lib.format.read_magic(f)
            shape, _, dtype = HEADERS[version](f)
            held = path.stat().st_size - f.tell()
        if min(shape, default=0) < 0:
            raise ValueError(f"its shape is {shape}")
        if (expected := math.prod(shape) * dtype.itemsize) != held:
            raise ValueError(f"its header promises {expected:,} bytes, and it has {held:,}")
        if not expected:
            return np.empty(shape, dtype)  # which cannot be mapped
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as e:  # a header is a Python literal, and numpy lets through what reading one may raise
        raise UserError(f"{path}: not a readable .npy file ({one_line(e, 120)})") from None
    return array
