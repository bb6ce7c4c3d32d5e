"""The formats of feature files; a new one is a reader in this package, and an entry here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pipeline.errors import UserError, one_line
from pipeline.registry import Registry
from pipeline.sources.feature_files import FOLDER, format_of
from pipeline.vectors import tables
from pipeline.vectors.base import Vectors

READERS: Registry[Callable[[Path], Vectors]] = Registry(
    "readers",
    {
        "npy": "pipeline.vectors.arrays:npy",
        "torch": "pipeline.vectors.arrays:torch",
        "records": "pipeline.vectors.arrays:records",
        "parquet": "pipeline.vectors.tables:parquet",
        "json": "pipeline.vectors.json:json",
        "zip": "pipeline.vectors.arrays:archive",
        "folder": "pipeline.vectors.arrays:folder",
    },
)  # format -> what opens a path


def opened(path: Path, column: str | None = None) -> Vectors:
    with readable(path):
        if column is not None:
            return tables.parquet(path, column)
        known, ending = format_of(path.name), path.suffix[1:].lower()
        is_added = known == FOLDER and ending in READERS.entries.keys() - READERS.built_in.keys()
        return READERS[ending if is_added else known](path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable as features: {one_line(e)}") from None
