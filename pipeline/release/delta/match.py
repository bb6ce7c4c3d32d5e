"""Find the rows of a table that an older release has too."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.release.delta.rebuild import (
    RANK,
    RUNS_SCHEMA,
    Numbers,
    TableFile,
    read_rows,
    renumber,
)


class RowIndex:
    """Rows of an older table by a hash of their content: 16 bytes per row."""

    def __init__(self, paths: Iterable[Path], file: TableFile, numbers: Numbers) -> None:
        """Renumber the rows by `numbers`, so that equal rows of both releases have equal hashes."""
        parts = (renumber(part, file, numbers) for path in paths for part in _read(path, file))
        hashes = [_hash_rows(part, file) for part in parts]
        joined = np.concatenate([np.empty(0, np.uint64), *hashes])
        self._rows = np.argsort(joined, kind="stable")
        self._hashes = joined[self._rows]

    def match(self, path: Path, file: TableFile) -> np.ndarray:
        """Return an older row of the same hash for each row of a file, int64 [rows]; -1: none."""
        matched = [self._find(_hash_rows(part, file)) for part in _read(path, file)]
        return np.concatenate([np.empty(0, np.int64), *matched])

    def _find(self, hashes: np.ndarray) -> np.ndarray:
        if not len(self._rows):
            return np.full(len(hashes), -1)
        place = np.searchsorted(self._hashes, hashes)
        place = np.minimum(place, len(self._rows) - 1)
        return np.where(self._hashes[place] == hashes, self._rows[place], -1)


def _read(path: Path, file: TableFile) -> Iterator[pa.Table]:
    return read_rows(path, file.schema)


def _hash_rows(part: pa.Table, file: TableFile) -> np.ndarray:
    hashes = np.zeros(len(part), np.uint64)
    texts = []
    for field in part.schema:
        column = part[field.name]
        if field.name in (file.own_id, RANK):
            continue  # follows from the position
        if field.type == schemas.vector(getattr(field.type, "list_size", 1)):
            hashes = _mix(hashes ^ _hash_vectors(io.matrix(column)))
        elif pa.types.is_primitive(field.type):
            hashes = _mix(hashes ^ _as_words(column))
        else:
            texts.append(field.name)

    if texts:
        rows = part.select(texts).to_pylist()
        hashes = _mix(hashes ^ np.fromiter(map(_hash_row, rows), np.uint64, len(rows)))
    return hashes


def _hash_vectors(vectors: np.ndarray) -> np.ndarray:
    words = vectors.view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1 << 63, size=words.shape[1], dtype=np.uint64)
    return words @ (2 * factors + 1)  # modulo 2**64


def _as_words(column: pa.ChunkedArray) -> np.ndarray:
    """Return the bits of numbers as uint64 [rows], distinct for null."""
    is_null = pc.is_null(column).to_numpy()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = column.fill_null(0).to_numpy()
    bits = values.view(f"u{values.itemsize}").astype(np.uint64)
    return np.where(is_null, np.uint64((1 << 64) - 1), bits)


def _hash_row(row: dict[str, Any]) -> int:
    digest = hashlib.blake2b(orjson.dumps(row), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Mix bits, as splitmix64 does."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (hashes ^ (hashes >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15)


def keep_increasing(rows: np.ndarray) -> np.ndarray:
    """Replace by -1 all but a longest strictly increasing subsequence of `rows`, int64 [N]."""
    places = np.flatnonzero(rows >= 0)
    values = rows[places]
    if (np.diff(values) > 0).all():
        return rows

    # patience sorting: the smallest last value of a subsequence of each length
    lasts: list[int] = []
    last_at: list[int] = []
    before = np.full(len(values), -1)
    for at, value in enumerate(values.tolist()):
        length = bisect_left(lasts, value)
        if length:
            before[at] = last_at[length - 1]
        lasts[length : length + 1] = [value]
        last_at[length : length + 1] = [at]

    kept = np.full(len(rows), -1)
    at = last_at[-1]
    while at >= 0:
        kept[places[at]] = values[at]
        at = int(before[at])
    return kept


def write_added(target: Path, path: Path, file: TableFile, origins: np.ndarray) -> None:
    """Write the rows of `path` that are new, with its record."""
    io.write_tables(_select_added(path, file, origins), target, file.schema, file.record)


def _select_added(path: Path, file: TableFile, origins: np.ndarray) -> Iterator[pa.Table]:
    held = [file.schema.empty_table()]
    first = 0
    for part in read_rows(path, file.schema):
        is_new = origins[first : first + len(part)] < 0
        held.append(part.filter(pa.array(is_new)))
        first += len(part)
        if sum(map(len, held)) >= io.PART:
            yield pa.concat_tables(held)
            held = held[:1]
    yield pa.concat_tables(held)


def write_runs(path: Path, origins: np.ndarray) -> None:
    is_kept = origins >= 0
    continues = (origins[1:] == origins[:-1] + 1) & is_kept[:-1]
    continues |= ~is_kept[1:] & ~is_kept[:-1]
    starts = np.flatnonzero(np.append(True, ~continues)[: len(origins)])
    rows = np.diff(starts, append=len(origins))
    table = pa.table({"older_row": origins[starts], "rows": rows})
    io.write_table(table, path, RUNS_SCHEMA)
