"""Feature sets that come with a source, in files of any format of pipeline/vectors/."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from alignrec.pipeline.encode.folder import table
from alignrec.pipeline.vectors.matching import File

OF_IMAGES = "records"  # format of features that are made only from images


def imported_rows(file: File, ids: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Yield the shards of a feature file's rows, `rows` items each; UserError if it does not fit the items."""
    matched = file.matched(ids["asin"].to_pylist())
    for start in range(0, len(ids), rows):
        own = ids.slice(start, rows)
        there = matched.place[start : start + len(own)] >= 0
        none = np.zeros(len(there), bool)
        unknown = pa.array(none, mask=there)  # an item without a row is made from nothing
        flags = (pa.array(there), pa.array(none)) if matched.vectors.of_images else (unknown, unknown)
        yield table(own, matched.rows(start, start + len(own)), *flags)
