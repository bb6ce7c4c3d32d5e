"""Columns of the item table: texts, read lazily, and category labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io

SMALLEST = 10  # least items per category
SAME = 0.95  # a level is skipped if one category has this share


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


def label_items(paths: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Label items by the first level of the category paths that has several classes; None if there is none.

    Returns the items with a label, ascending, their labels 0 .. C-1, both int64 [n], and C names, sorted.
    """
    table = pa.array(paths, pa.list_(pa.string()))
    lengths = pc.list_value_length(table).to_numpy()
    for level in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > level)
        named = pc.list_element(table.take(pa.array(rows)), level)
        counts = {count["values"]: count["counts"] for count in pc.value_counts(named).to_pylist()}
        names = sorted(name for name, n in counts.items() if n >= SMALLEST)
        if len(names) > 1 and max(counts.values()) < SAME * len(rows):
            label = pc.index_in(named, pa.array(names))
            kept = label.is_valid().to_numpy(zero_copy_only=False)
            return rows[kept], label.drop_null().to_numpy().astype(np.int64), names
    return None
