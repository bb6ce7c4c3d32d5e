"""Images that an earlier run of the stage stored, by item."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io


class StoredImages:
    """Rows of a shard, which is read a row group at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        asins = io.read_table(path, schemas.IMAGES, ["asin"])["asin"].to_pylist()
        self._row_of = {asin: row for row, asin in enumerate(asins)}
        with io.reraise_faults(path):
            metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._first_row = np.cumsum([0, *sizes])  # of each row group

    def find(self, asins: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the stored row of each item, or None."""
        rows = np.array([self._row_of[asin] for asin in asins if asin in self._row_of], np.int64)
        groups = np.searchsorted(self._first_row, rows, side="right") - 1
        found: dict[str, dict[str, Any]] = {}
        with io.reraise_faults(self._path), pq.ParquetFile(self._path) as file:
            for group in np.unique(groups):
                first_row = int(self._first_row[group])
                table = file.read_row_group(int(group))
                schemas.check(table, schemas.IMAGES, str(self._path), first_row)
                taken = table.take(rows[groups == group] - first_row)
                found |= {row["asin"]: row for row in taken.to_pylist()}
        return [found.get(asin) for asin in asins]
