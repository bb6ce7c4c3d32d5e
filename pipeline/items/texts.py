"""The texts of all items, which are read from their table a part at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io

COLUMN = ["text"]


class Texts:
    """Column `text` of a file of ITEMS, in item order, read when asked for; UserError if there is no such file."""

    def __init__(self, path: Path) -> None:
        io.read_table(path, schemas.ITEMS, [])
        self.path, self._len = path, io.rows([path])

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        for part in io.read_slices(self.path, schemas.ITEMS, COLUMN, io.PART):
            yield from part["text"].to_pylist()

    def slice(self, start: int, length: int) -> pa.ChunkedArray:
        return io.read_rows(self.path, schemas.ITEMS, COLUMN, start, length)["text"]
