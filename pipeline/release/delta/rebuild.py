"""Tables of a release as rows of an older release and rows of a delta.

Items and users have other numbers in each release, so a kept row is renumbered. One pass reads the
older rows, in row groups: memory is 24 bytes per row, and what one row group takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.release.table_kinds import TABLES
from alignrec.pipeline.release.tables import COUNTED

MAX_GROUP_BYTES = 1 << 29  # of a row group in memory, by the width of its numbers
RUNS_SCHEMA = pa.schema(
    [
        schemas.field("older_row", pa.int64(), "first row there; -1: the next added rows", low=-1),
        schemas.field("rows", pa.int64(), "number of consecutive rows", low=1),
    ]
)
NAMED = {"item": ("items.parquet", "asin"), "user": ("users.parquet", "user")}
RANK = "rank"  # position among the edges of an item

# item or user -> int32 [older numbers], their number in the newer release, -1 if removed
Numbers = Mapping[str, np.ndarray]


class TableFile(NamedTuple):
    """A file of a table that is rebuilt."""

    kind: str
    schema: pa.Schema
    record: dict[str, Any] | None
    first: int
    """number of its first row in the table, which can have several files"""
    groups: list[int]
    """rows of each row group"""

    @property
    def own_id(self) -> str:
        """Column that numbers the rows; empty if there is none."""
        numbered = TABLES[self.kind].numbered
        return f"{numbered}_id" if numbered else ""


def match_numbers(older: Path, newer: Path) -> Numbers:
    """Find the items and users of an older release folder in a newer one, by name."""
    numbers = {}
    for what, (file, column) in NAMED.items():
        if (older / file).is_file() and (newer / file).is_file():
            names = _read_names(newer / file, column)
            matched = pc.index_in(_read_names(older / file, column), names)
            numbers[what] = matched.fill_null(-1).to_numpy()
    return numbers


def list_removed(older: Path, numbers: Numbers) -> pa.ChunkedArray:
    """Return the identifiers of the items that the newer release does not have."""
    file, column = NAMED["item"]
    return _read_names(older / file, column).filter(pa.array(numbers["item"] < 0))


def _read_names(path: Path, column: str) -> pa.ChunkedArray:
    batches = [batch.column(column) for batch in read_batches(path, [column], io.PART)]
    return pa.chunked_array(batches, pa.string())


def describe_table(path: Path, kind: str, schema: pa.Schema, first: int) -> TableFile:
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return TableFile(kind, schema, io.record(path) or None, first, groups)


def can_renumber(file: TableFile, numbers: Numbers) -> bool:
    """Return whether both releases name all items and users to which the table refers."""
    return all(what in numbers for what in _references(file).values())


def _references(file: TableFile) -> dict[str, str]:
    """Return column -> item or user, for columns of numbers other than the table's own."""
    names = set(file.schema.names) - {file.own_id}
    return {column: what for column, what in COUNTED.items() if column in names}


def is_bounded(file: TableFile) -> bool:
    """Return whether each row group fits into MAX_GROUP_BYTES."""
    lists = [field.type for field in file.schema if pa.types.is_fixed_size_list(field.type)]
    numbers_per_row = len(file.schema) + sum(kind.list_size for kind in lists)
    return max(file.groups, default=0) * numbers_per_row * 4 <= MAX_GROUP_BYTES


def rebuild_table(
    target: Path,
    file: TableFile,
    older: Sequence[Path],
    added: Path,
    origins: np.ndarray,
    numbers: Numbers,
) -> None:
    """Write a table of rows of `older`, the files of the older table, and of `added`.

    `origins` int64 [rows] has the older row of each row, increasing, or -1 for the next added row.
    """
    groups = _read_groups(file, older, added, origins, numbers)
    io.write_tables(groups, target, file.schema, file.record)


def _read_groups(
    file: TableFile, older: Sequence[Path], added: Path, origins: np.ndarray, numbers: Numbers
) -> Iterator[pa.Table]:
    kept_rows = origins[origins >= 0]
    start = int(kept_rows[0]) if len(kept_rows) else 0
    kept = RowReader(older, file.schema, start)
    new = RowReader([added], file.schema)
    ranks = EdgeRanks()
    n_written = 0
    n_added = 0
    for n_rows in file.groups:
        group_origins = origins[n_written : n_written + n_rows]
        is_kept = group_origins >= 0
        n_kept = int(is_kept.sum())
        old_part = renumber(kept.take(group_origins[is_kept]), file, numbers)
        next_added = n_added + n_rows - n_kept
        new_part = new.take(np.arange(n_added, next_added))

        order = np.empty(n_rows, np.int64)
        order[is_kept] = np.arange(n_kept)
        order[~is_kept] = np.arange(n_kept, n_rows)
        # pages depend on chunks, and those of our stages come from one chunk per row group
        group = pa.concat_tables([old_part, new_part]).take(pa.array(order)).combine_chunks()
        if file.own_id:
            first = file.first + n_written
            group = _set_numbers(group, file.own_id, np.arange(first, first + n_rows))
        yield ranks.number(group) if RANK in file.schema.names else group
        n_written += n_rows
        n_added = next_added


class RowReader:
    """Rows of a table of one file or several, by increasing number, in one pass."""

    def __init__(self, paths: Sequence[Path], schema: pa.Schema, start: int = 0) -> None:
        self.paths = list(paths)
        self.schema = schema
        self._part = schema.empty_table()
        self._first = 0
        while self.paths:
            n_rows = pq.read_metadata(self.paths[0]).num_rows
            if self._first + n_rows > start:
                break
            self._first += n_rows
            del self.paths[0]
        # a generator of this object would be in a cycle with it, and hold a part until collected
        self._parts = chain.from_iterable(read_rows(path, schema) for path in self.paths)

    def take(self, rows: np.ndarray) -> pa.Table:
        """Return rows by their numbers, int64 [N], which increase from call to call."""
        taken = [self.schema.empty_table()]
        done = 0
        while done < len(rows):
            end = self._first + len(self._part)
            last = int(np.searchsorted(rows, end))
            if last > done:
                taken.append(self._part.take(pa.array(rows[done:last] - self._first)))
                done = last
            else:
                self._first = end
                self._part = self._next_part(end)
        return pa.concat_tables(taken)

    def _next_part(self, end: int) -> pa.Table:
        part = next(self._parts, None)
        if part is None:
            where = self.paths[-1] if self.paths else "table"
            raise UserError(f"{where}: has {end:,} rows, fewer than the delta says")
        return part


class EdgeRanks:
    """Numbers the edges of each item, across row groups."""

    def __init__(self) -> None:
        self._item = -1
        self._next = 0

    def number(self, edges: pa.Table) -> pa.Table:
        if not len(edges):
            return edges
        items = edges["item_id"].to_numpy()
        # the first row of each edge's item, below 0 if that is in the row group before
        first = np.full(len(items), -self._next)
        starts = np.flatnonzero(np.diff(items, prepend=self._item))
        first[starts] = starts
        ranks = np.arange(len(items)) - np.maximum.accumulate(first)
        self._item = int(items[-1])
        self._next = int(ranks[-1]) + 1
        return _set_numbers(edges, RANK, ranks)


def read_rows(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of an untrusted file in parts; ContractError if they break the schema."""
    first = 0
    for batch in read_batches(path, rows=io.PART):
        batch.validate(full=True)  # detects invalid UTF-8
        yield schemas.check(pa.Table.from_batches([batch]), schema, str(path), first)
        first += len(batch)


def renumber(part: pa.Table, file: TableFile, numbers: Numbers) -> pa.Table:
    """Replace older numbers of items and users by those of the newer release, or -1."""
    for column, what in _references(file).items():
        part = _set_numbers(part, column, numbers[what][part[column].to_numpy()])
    return part


def _set_numbers(part: pa.Table, column: str, values: np.ndarray) -> pa.Table:
    return io.set_column(part, column, pa.array(values).cast(part.schema.field(column).type))


def read_origins(path: Path, n_rows: int, n_older: int, n_added: int) -> np.ndarray:
    """Read untrusted runs as the older row of each of `n_rows` rows; see `rebuild_table`.

    UserError unless they take increasing rows of `n_older`, and all of `n_added`.
    """
    origins = [np.empty(0, np.int64)]
    next_older = 0
    added_left = n_added
    for part in read_rows(path, RUNS_SCHEMA):
        firsts, lengths = (column.to_pylist() for column in part.columns)
        for first, rows in zip(firsts, lengths, strict=True):
            if first < 0:
                is_sound = rows <= added_left
                added_left -= rows
            else:
                is_sound = next_older <= first and first + rows <= n_older
                next_older = first + rows
            if not is_sound:
                raise UserError(f"{path}: takes rows that the two releases do not have")
            origins.append(np.full(rows, -1) if first < 0 else np.arange(first, next_older))

    joined = np.concatenate(origins)
    if added_left or len(joined) != n_rows:
        raise UserError(f"{path}: has other rows than the manifest says")
    return joined


def count_rows(path: Path) -> int:
    """Count the rows of an untrusted file, whose footer may lie."""
    return sum(map(len, read_batches(path, pq.read_schema(path).names[:1], io.PART)))
