"""Columns of the item table: texts, read lazily, and image addresses."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.sources.base import is_path


class Texts:
    """Lazy column `text` of an ITEMS file, in item order."""

    def __init__(self, path: Path) -> None:
        io.read_table(path, schemas.ITEMS, [])
        self.path, self._len = path, io.rows([path])

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        for part in io.read_slices(self.path, schemas.ITEMS, ["text"], io.PART):
            yield from part["text"].to_pylist()

    def slice(self, start: int, length: int) -> pa.ChunkedArray:
        return io.read_rows(self.path, schemas.ITEMS, ["text"], start, length)["text"]


def is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)  # drops line feeds and tabs, so a path may look like an address
        return not is_path(address) and parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:  # such as http://[
        return False
