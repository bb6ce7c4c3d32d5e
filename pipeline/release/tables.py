"""Validate the untrusted tables of a release in blocks of rows; across tables, only names are kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.products import LONGEST_TEXT
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import Counts, File, Manifest

TEXTS, TEXT_EXPANSION = (
    1 << 28,
    100,
)  # maximum bytes of a table's texts, and their ratio to its size above that
CHANGED = "rows or columns are not as the manifest says"


class Check:
    """Stateful check of a table's rows, in one file or several."""

    def __init__(self, where: str, counts: Counts) -> None:
        self.where, self.counts = where, counts

    def check_rows(self, part: pa.Table, first: int) -> str:
        """Check the next rows, numbered from `first`; a non-empty fault stops reading the file."""
        return ""

    def find_fault(self) -> str:
        return ""


def find_faults(folder: Path, manifest: Manifest) -> list[str]:
    """Validate single tables, then ids across tables, then graphs and semantic IDs, until a stage has faults."""
    counts, names = manifest.counts, {"item": Names("asin"), "user": Names("user")}
    ids, others, found = dict[str, Ids](), dict[str, Check](), list[str]()
    for file in manifest.files:
        if file.table is None:
            continue
        checks, numbered = list[Check](), manifests.TABLES[file.table].numbered
        # a feature set can have several files
        where = file.path.rpartition("/")[0] if file.table == "features" else file.path
        if numbered:
            checks.append(ids.setdefault(where, Ids(where, counts, numbered, names[numbered])))
        if own := OWN.get(file.table):
            checks.append(others.setdefault(where, own(where, counts)))
        if fault := _table_fault(folder / file.path, file, counts, checks):
            found.append(f"{file.path}: {fault}")
    for some in (ids, others):
        found = found or [fault for check in some.values() if (fault := check.find_fault())]
    return found


def _table_fault(path: Path, file: File, counts: Counts, checks: Sequence[Check]) -> str:
    entry = manifests.TABLES[str(file.table)]
    if not fnmatchcase(file.path, entry.path):
        return f"is no path of a table of kind {file.table}, which is {entry.path}"
    try:
        if manifests.read_shape(path) != (file.rows, file.columns):
            return CHANGED
        if file.table == "interactions" and file.rows != counts.interactions:
            return f"{file.rows} rows, expected {counts.interactions}"
        stored = pq.read_schema(path)
        widths = [f.type.list_size for f in stored if pa.types.is_fixed_size_list(f.type)]
        schema, first, texts = (
            entry.schema(widths[0] if widths else 1) if entry.schema else None,
            0,
            0,
        )
        if schema is not None:
            schemas.check(stored.empty_table(), schema, str(path))
        for batch in read_batches(path, rows=io.PART):
            batch.validate(full=True)  # detects invalid UTF-8 and list offsets out of bounds
            if (texts := texts + sum(map(_text_size, batch.columns))) > max(
                TEXTS, TEXT_EXPANSION * file.bytes
            ):
                return f"takes {texts:,} bytes of memory for texts, from {file.bytes:,} on disk"
            part = pa.Table.from_batches([batch])
            part = part if schema is None else schemas.check(part, schema, str(path), first)
            for check in checks:
                if fault := check.check_rows(part, first):
                    return fault
            first += len(part)
        return "" if first == file.rows else CHANGED
    except (
        UserError,
        schemas.ContractError,
        pa.ArrowException,
        OSError,
        ValueError,
        KeyError,
    ) as e:
        fault = (
            str(e)
            .removeprefix(f"{path}")
            .removeprefix(":")
            .removesuffix("; make or fetch it again")
        )
        return " ".join(fault.split())  # Arrow's messages have several lines


def _text_size(column: pa.Array) -> int:
    """Return the bytes of all texts; UserError if one is longer than the stage `items` allows."""
    texts = (
        column.flatten()
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        else column
    )
    if pa.types.is_primitive(texts.type):
        return 0
    if not pa.types.is_string(texts.type):
        raise UserError(f"has a column of {column.type}")
    if (longest := pc.max(pc.utf8_length(texts)).as_py() or 0) > LONGEST_TEXT:
        raise UserError(
            f"has a text of {longest:,} characters; none has more than {LONGEST_TEXT:,}"
        )
    return pc.sum(pc.binary_length(texts)).as_py() or 0


class References(Check):
    """Foreign keys: ids must exist in the tables of users and items."""

    def check_rows(self, part: pa.Table, first: int) -> str:
        for column, what in (("item_id", "item"), ("neighbour_id", "item"), ("user_id", "user")):
            if column in part.column_names:
                known = self.counts.users if what == "user" else self.counts.items
                wrong = np.flatnonzero(part[column].to_numpy() >= known)
                if wrong.size:
                    return f"row {first + wrong[0]}: {column} {part[column][int(wrong[0])]} is no {what}"
        return ""


class Names:
    """Names of items or users in the first table that has them; the reference for all others."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._owner: object = None
        self._chunks: list[pa.Array] = []

    def find_difference(
        self, owner: object, first: int, names: pa.ChunkedArray
    ) -> tuple[int, str] | None:
        """Return the first row from `first` on whose name differs from the reference, and the reference name."""
        if self._owner in (None, owner):
            self._owner = owner
            self._chunks += names.chunks
            return None
        known = pa.chunked_array(self._chunks, pa.string()).slice(first, len(names))
        if known.equals(names):
            return None
        row = pc.index(pc.equal(known, names.slice(0, len(known))), False).as_py()
        return None if row < 0 else (first + row, known[row].as_py())

    @cached_property
    def repeated_name(self) -> str | None:
        """A duplicate name, if any; frees the names, so use it after all comparisons."""
        names, self._chunks = pa.chunked_array(self._chunks, pa.string()), []
        order = pc.sort_indices(names)  # takes 8 bytes per name, a hash table ten times that
        for at in range(0, len(names) - 1, io.PART):
            some = names.take(order.slice(at, io.PART + 1))
            row = pc.index(pc.equal(some.slice(0, len(some) - 1), some.slice(1)), True).as_py()
            if row >= 0:
                return str(some[row])
        return None


class Ids(Check):
    """Ids must be dense, ascending, and have the same names in every table."""

    def __init__(self, where: str, counts: Counts, numbered: str, names: Names) -> None:
        super().__init__(where, counts)
        self._key, self._expected = (
            f"{numbered}_id",
            counts.items if numbered == "item" else counts.users,
        )
        self._names, self._rows, self._wrong, self._other, self._named = names, 0, "", "", False

    def check_rows(self, part: pa.Table, first: int) -> str:
        numbers, at, name = part[self._key].to_numpy(), self._rows, self._names.column
        self._rows += len(numbers)
        wrong = np.flatnonzero(numbers != np.arange(at, self._rows))
        if wrong.size and not self._wrong:
            row = int(wrong[0])
            self._wrong = f", row {at + row}: {self._key} {numbers[row]}, expected {at + row}"
        self._named = name in part.column_names  # users can be unnamed
        if (
            self._named
            and not self._other
            and (found := self._names.find_difference(self, at, part[name]))
        ):
            row, elsewhere = found
            self._other = (
                f", row {row}: {name} {part[name][row - at].as_py()!r}, elsewhere {elsewhere!r}"
            )
        return ""

    def find_fault(self) -> str:
        if self._rows != self._expected:
            return f"{self.where}: {self._rows} rows, expected {self._expected}"
        fault = self._wrong or self._other
        if not fault and self._named and (twice := self._names.repeated_name) is not None:
            fault = f": {self._names.column} {twice!r} is there twice"
        return fault and f"{self.where}{fault}"


class Edges(References):
    """Edges must be sorted by item and rank, with at least one edge per item."""

    _last, _fault = (-1, 0), ""  # item and rank of the last row

    def check_rows(self, part: pa.Table, first: int) -> str:
        if unknown := super().check_rows(part, first):
            return unknown
        item, rank = (part[name].to_numpy().astype(np.int64) for name in ("item_id", "rank"))
        item_before, rank_before = (
            np.append(last, x[:-1]) for last, x in zip(self._last, (item, rank), strict=True)
        )
        next_rank = (item == item_before) & (rank == rank_before + 1)
        wrong = np.flatnonzero(~(next_rank | ((item == item_before + 1) & (rank == 0))))
        if wrong.size and not self._fault:
            row = int(wrong[0])
            self._fault = f"{self.where}, row {first + row}: rank {rank[row]} of item {item[row]} is not the next edge"
            if item[row] > item_before[row] + 1:
                self._fault = f"{self.where}: no edge of item {item_before[row] + 1}"
        if len(part):
            self._last = int(item[-1]), int(rank[-1])
        return ""

    def find_fault(self) -> str:
        last = self._last[0] + 1
        return self._fault or (
            f"{self.where}: no edge of item {last}" if last != self.counts.items else ""
        )


class Vectors(Check):
    """A feature set must have a non-zero vector."""

    _present = False

    def check_rows(self, part: pa.Table, first: int) -> str:
        self._present = self._present or bool(io.matrix(part["vector"]).any())
        return ""

    def find_fault(self) -> str:
        return (
            ""
            if self._present
            else f"{self.where}: every vector is zero; leave it out of publish.features"
        )


class SemanticIds(Check):
    """Codes, suffix and status must be consistent, and pairs of codes and suffix unique."""

    def __init__(self, where: str, counts: Counts) -> None:
        super().__init__(where, counts)
        self._numbered: list[np.ndarray] = []

    def check_rows(self, part: pa.Table, first: int) -> str:
        column, suffix = part["codes"].combine_chunks(), part["suffix"].combine_chunks()
        coded, numbered = (x.is_valid().to_numpy(zero_copy_only=False) for x in (column, suffix))
        codes = np.full((len(part), column.type.list_size), -1, np.int32)
        codes[coded] = column.drop_null().flatten().to_numpy().reshape(-1, column.type.list_size)
        wrong = (coded != pc.equal(part["status"], "coded").to_numpy()) | (numbered & ~coded)
        wrong |= coded & (codes < 0).any(axis=1)
        if wrong.any():
            return f"row {first + wrong.argmax()}: codes, suffix and status do not agree"
        self._numbered.append(np.column_stack([codes[numbered], suffix.drop_null().to_numpy()]))
        return ""

    def find_fault(self) -> str:
        every = np.concatenate(self._numbered or [np.empty((0, 1), np.int32)])
        twice = len(every) - len(np.unique(every, axis=0))
        return (
            f"{self.where}: {twice:,} items have the codes and suffix of another" if twice else ""
        )


# kind of table -> check of constraints beyond its schema
OWN: dict[str, type[Check]] = {
    "interactions": References, "features": Vectors, "edges": Edges, "semantic_ids": SemanticIds
}  # fmt: skip
