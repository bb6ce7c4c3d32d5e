"""Reader of Amazon's 2014 image features (jmcauley.ucsd.edu/data/amazon, "visual features").

Records are an ASIN and little-endian float32 numbers. They are read in blocks, as a category's file
is far larger than memory.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import open_unpacked
from alignrec.pipeline.vectors.base import VectorFile, gather_rows, no_vectors

ASIN_BYTES = 10
RECORD_WIDTH = 4096  # float32 numbers of a record
RECORD_BYTES = ASIN_BYTES + 4 * RECORD_WIDTH
RECORDS_PER_BLOCK = 512  # 8 MiB


def open_records(path: Path) -> VectorFile:
    """Open a .b file; the first record of an ASIN wins.

    UserError if the last record is truncated.
    """
    names: list[str | None] = []
    distinct: set[bytes] = set()
    for _, record in _iterate_records(path):
        asin = bytes(record[:ASIN_BYTES])
        names.append(None if asin in distinct else asin.decode(errors="replace"))
        distinct.add(asin)
    if not names:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = ((number, _decode_vector(record)) for number, record in _iterate_records(path))
        return gather_rows(path, rows, numbers, RECORD_WIDTH)

    ids = pa.table({"asin": pa.array(names, pa.string())})
    return VectorFile(path, len(names), RECORD_WIDTH, take, ids, of_images=True)


def _decode_vector(record: memoryview) -> np.ndarray:
    return np.frombuffer(record, "<f4", offset=ASIN_BYTES)


def _iterate_records(path: Path) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and bytes of each record."""
    number = 0
    with open_unpacked(path) as f:
        while block := f.read(RECORDS_PER_BLOCK * RECORD_BYTES):
            # a compressed file may give fewer bytes than are asked for
            while len(block) % RECORD_BYTES:
                more = f.read(RECORD_BYTES - len(block) % RECORD_BYTES)
                if not more:
                    break
                block += more

            cut_bytes = len(block) % RECORD_BYTES
            for start in range(0, len(block) - cut_bytes, RECORD_BYTES):
                yield number, memoryview(block)[start : start + RECORD_BYTES]
                number += 1
            if cut_bytes:
                position = number * RECORD_BYTES + cut_bytes
                raise UserError(
                    f"{path}: cut off at byte {position:,}, inside a record of {RECORD_BYTES:,}; "
                    "download it again"
                )
