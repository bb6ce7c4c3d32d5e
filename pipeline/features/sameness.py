"""Detection of feature sets with the same vector, or zeros, for all items."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import io
from pipeline.errors import UserError
from pipeline.run import Run

MOST = 0.5  # share of zero vectors above which a warning is due
BLOCK = 4096  # rows held at a time
EQUAL = 1e-5  # tolerance, relative to the largest number: batch sizes change the last bits


class Seen(NamedTuple):
    """Vectors of the items with content."""

    items: int
    zero: int  # vectors of zeros
    equal: bool  # all vectors are the same


def check(run: Run, name: str, file: Path | None = None, derived: bool = False) -> None:
    """Warn of equal or zero vectors; UserError if all are zero, unless `derived`: one vector, whitened, is zero."""
    items, zero, equal = look(io.shards(run.layout.features(name), "features"))
    if items and zero == items and not derived:
        where = f"{file}: " if file else ""
        raise UserError(f"{where}all {items:,} items with content have a vector of zeros; correct it, or leave it out")
    if items > 1 and equal and zero < items:
        run.warn(f"{name}: all {items:,} items with content have the same vector")
    elif zero > MOST * items:
        run.warn(f"{name}: {zero:,} of {items:,} items with content have a vector of zeros")


def look(paths: Iterable[Path]) -> Seen:
    items, zero, equal = 0, 0, True
    first: np.ndarray | None = None
    for path in paths:
        rows = pq.read_table(path, columns=["has_image", "has_text", "vector"])
        nothing = pc.and_kleene(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))
        vectors = io.matrix(rows.filter(pc.invert(nothing).fill_null(True))["vector"])
        if not len(vectors):
            continue
        first = vectors[0] if first is None else first
        items += len(vectors)
        zero += int((~vectors.any(axis=1)).sum())
        equal = equal and bool(np.abs(vectors - first).max() <= EQUAL * np.abs(first).max())
    return Seen(items, zero, equal)


def distinguishes(vectors: np.ndarray) -> bool:
    """Return whether two nonzero rows of vectors [I, F] differ."""
    first: np.ndarray | None = None
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        known = part[part.any(axis=1)]
        if len(known):
            first = known[0] if first is None else first
            if np.abs(known - first).max() > EQUAL * np.abs(first).max():
                return True
    return False
