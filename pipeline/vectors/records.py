"""Image features of Amazon's 2014 data: records of a 10-byte ASIN and 4096 float32, little-endian.

Format: jmcauley.ucsd.edu/data/amazon, "visual features". A file of all products of a category is far larger than memory
(Electronics: 8 GB), so it is read in blocks.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.sources.lines import unpacked
from pipeline.vectors.base import Vectors, empty, gather

ASIN, WIDTH = 10, 4096  # bytes, numbers
RECORD = ASIN + 4 * WIDTH  # bytes
BLOCK = 512  # records, 8 MiB


def records(path: Path, dim: int | None = None) -> Vectors:
    """Open a .b file; the first record of an ASIN counts. UserError, with the offset, if a record is cut off."""
    names: list[str | None] = []
    seen: set[bytes] = set()
    for _, record in _records(path):
        asin = bytes(record[:ASIN])
        names.append(None if asin in seen else asin.decode(errors="replace"))
        seen.add(asin)
    if not names:
        raise empty(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = ((number, np.frombuffer(record, "<f4", offset=ASIN)) for number, record in _records(path))
        return gather(path, rows, numbers, WIDTH)

    ids = pa.table({"asin": pa.array(names, pa.string())})
    return Vectors(path, len(names), WIDTH, take, ids, of_images=True)


def _records(path: Path) -> Iterator[tuple[int, memoryview]]:
    number = 0
    with unpacked(path) as f:
        while block := f.read(BLOCK * RECORD):
            while len(block) % RECORD and (more := f.read(RECORD - len(block) % RECORD)):
                block += more
            for start in range(0, len(block) - RECORD + 1, RECORD):
                yield number, memoryview(block)[start : start + RECORD]
                number += 1
            if rest := len(block) % RECORD:
                raise UserError(
                    f"{path}: cut off at byte {number * RECORD + rest:,}, {rest:,} bytes into a record of {RECORD:,} "
                    f"(ASIN and {WIDTH} float32); download it again"
                )
