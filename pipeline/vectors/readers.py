"""The formats of feature files; a new one is a reader in this package, and an entry here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.registry import Registry
from alignrec.pipeline.sources.feature_files import FOLDER, format_of
from alignrec.pipeline.vectors import tables
from alignrec.pipeline.vectors.base import Vectors

READERS: Registry[Callable[[Path], Vectors]] = Registry(
    "readers",
    {
        "npy": "alignrec.pipeline.vectors.arrays:npy",
        "torch": "alignrec.pipeline.vectors.arrays:torch",
        "records": "alignrec.pipeline.vectors.arrays:records",
        "parquet": "alignrec.pipeline.vectors.tables:parquet",
        "json": "alignrec.pipeline.vectors.json:json",
        "zip": "alignrec.pipeline.vectors.arrays:archive",
        "folder": "alignrec.pipeline.vectors.arrays:folder",
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
