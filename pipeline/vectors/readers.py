"""Registry of feature file formats."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.registry import Registry
from alignrec.pipeline.sources.feature_files import FOLDER, format_of
from alignrec.pipeline.vectors import tables
from alignrec.pipeline.vectors.base import Vectors

# to add a format, write a reader in this package and register it here
READERS: Registry[Callable[[Path], Vectors]] = Registry(
    "readers",
    {
        "npy": "alignrec.pipeline.vectors.arrays:open_npy",
        "torch": "alignrec.pipeline.vectors.arrays:open_torch",
        "records": "alignrec.pipeline.vectors.arrays:open_records",
        "parquet": "alignrec.pipeline.vectors.tables:open_parquet",
        "json": "alignrec.pipeline.vectors.json:open_json",
        "zip": "alignrec.pipeline.vectors.arrays:open_archive",
        "folder": "alignrec.pipeline.vectors.arrays:open_folder",
    },
)  # format -> reader


def open_vectors(path: Path, column: str | None = None) -> Vectors:
    if not path.is_dir():
        io.require_plain(path)
    with reraise_faults(path):
        if column is not None:
            return tables.open_parquet(path, column)
        known, ending = format_of(path.name), path.suffix[1:].lower()
        is_added = known == FOLDER and ending in READERS.entries.keys() - READERS.built_in.keys()
        return READERS[ending if is_added else known](path)


@contextmanager
def reraise_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable as features: {one_line(e)}") from None
