"""The category of each item, at the level of the category path that separates items."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SMALLEST = 10  # items a category must have
SAME = 0.95  # share of one category at which a level of the path is skipped for the next


class Labels(NamedTuple):
    """The items that have a category."""

    rows: np.ndarray  # int64 [n], ascending
    label: np.ndarray  # int64 [n], 0 .. C-1
    names: list[str]  # C names, sorted


def labels(paths: Sequence[Sequence[str]]) -> Labels | None:
    """Return each item's label at the first level of the category paths that has several classes; None if none has."""
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
            return Labels(rows[kept], label.drop_null().to_numpy().astype(np.int64), names)
    return None
