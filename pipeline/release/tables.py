"""Validate the untrusted tables of a release in blocks of rows.

Across tables, only names are kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.products import MAX_TEXT_CHARACTERS
from alignrec.pipeline.io import pages
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import Counts, File, Manifest
from alignrec.pipeline.release.table_kinds import TABLES

MAX_TEXT_BYTES = 1 << 28  # of a table in memory
MAX_TEXT_EXPANSION = 100  # above it: ratio of a table's texts in memory to its bytes on disk
CHANGED = "rows or columns are not as the manifest says"
OF_CORE = ("interactions", "item_embeddings")  # tables of items with interactions only
COUNTED = {"item_id": "item", "neighbour_id": "item", "user_id": "user"}  # column -> what it names


class RowCheck:
    """Stateful check of a table's rows, in one file or several."""

    def __init__(self, where: str, counts: Counts) -> None:
        self.where = where
        self.counts = counts

    def check_rows(self, part: pa.Table, first: int) -> str:
        """Check the next rows, numbered from `first`; a non-empty fault stops reading the file."""
        return ""

    def find_fault(self) -> str:
        return ""


def find_faults(folder: Path, manifest: Manifest) -> list[str]:
    """Validate tables, then ids across them, then the rest, until a stage has faults."""
    names = {"item": NameIndex("asin"), "user": NameIndex("user")}
    id_checks: dict[str, RowCheck] = {}
    content_checks: dict[str, RowCheck] = {}
    faults = []
    for file in _order_tables(manifest):
        kind = str(file.table)
        table = file.table_path
        counts = _counts_of_table(manifest, kind)
        checks: list[RowCheck] = []
        if numbered := TABLES[kind].numbered:
            check = IdCheck(table, counts, numbered, names[numbered])
            checks.append(id_checks.setdefault(table, check))
        if kind in CONTENT_CHECKS:
            content_check = CONTENT_CHECKS[kind](table, counts)
            checks.append(content_checks.setdefault(table, content_check))

        if fault := _table_fault(folder / file.path, file, counts, checks):
            faults.append(f"{file.path}: {fault}")

    return faults or _collect_faults(id_checks) or _collect_faults(content_checks)


def _collect_faults(checks: Mapping[str, RowCheck]) -> list[str]:
    faults = (check.find_fault() for check in checks.values())
    return list(filter(None, faults))


def _table_fault(path: Path, file: File, counts: Counts, checks: Sequence[RowCheck]) -> str:
    glob = TABLES[str(file.table)].path
    if not fnmatchcase(file.path, glob):
        return f"is no path of a table of kind {file.table}, which is {glob}"
    try:
        if manifests.read_shape(path) != (file.rows, file.columns):
            return CHANGED
        if file.table == "interactions" and file.rows != counts.interactions:
            return f"{file.rows} rows, expected {counts.interactions}"
        return _rows_fault(path, file, checks)
    except (
        UserError, schemas.ContractError, pa.ArrowException, OSError, ValueError, KeyError
    ) as e:  # fmt: skip
        fault = str(e).removeprefix(f"{path}").removeprefix(":")
        fault = fault.removesuffix("; make or fetch it again")
        return " ".join(fault.split())  # Arrow's messages have several lines


def _rows_fault(path: Path, file: File, checks: Sequence[RowCheck]) -> str:
    schema = table_schema(path, file)
    max_text_bytes = max(MAX_TEXT_BYTES, MAX_TEXT_EXPANSION * file.bytes)
    too_large = "takes {:,} bytes of memory for texts, from {:,} on disk"
    unpacked = pages.text_bytes(path)  # a page is unpacked as a whole
    if unpacked > max_text_bytes:
        return too_large.format(unpacked, file.bytes)

    first = 0
    text_bytes = 0
    for batch in read_batches(path, rows=io.PART):
        batch.validate(full=True)  # detects invalid UTF-8 and list offsets out of bounds
        text_bytes += sum(map(_count_text_bytes, batch.columns))
        if text_bytes > max_text_bytes:
            return too_large.format(text_bytes, file.bytes)

        part = pa.Table.from_batches([batch])
        part = io.decode_vectors(schemas.check(part, schema, str(path), first))
        for check in checks:
            if fault := check.check_rows(part, first):
                return fault
        first += len(part)
    return "" if first == file.rows else CHANGED


def table_schema(path: Path, file: File) -> pa.Schema:
    """Return the schema that the rows must have; ContractError if the columns differ from it."""
    stored = pq.read_schema(path)
    lists = [field.type for field in stored if pa.types.is_fixed_size_list(field.type)]
    schema = TABLES[str(file.table)].schema(lists[0].list_size if lists else 1)
    schema = schemas.store_as(schema, schemas.vector_type(stored))
    schemas.check(stored.empty_table(), schema, str(path))
    return schema


def _count_text_bytes(column: pa.Array) -> int:
    """Return the bytes of all texts; UserError if one is longer than the stage `items` allows."""
    texts = column
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        texts = column.flatten()
    if pa.types.is_primitive(texts.type):
        return 0
    if not pa.types.is_string(texts.type):
        raise UserError(f"has a column of {column.type}")

    longest = pc.max(pc.utf8_length(texts)).as_py() or 0
    if longest > MAX_TEXT_CHARACTERS:
        raise UserError(
            f"has a text of {longest:,} characters; none has more than {MAX_TEXT_CHARACTERS:,}"
        )
    return pc.sum(pc.binary_length(texts)).as_py() or 0


def _count_of(counts: Counts, numbered: str) -> int:
    return counts.users if numbered == "user" else counts.items


def _counts_of_table(manifest: Manifest, kind: str) -> Counts:
    """Return the counts that the rows and ids of a table must keep to."""
    counts = manifest.counts
    if kind in OF_CORE and counts.core is not None:
        return counts.model_copy(update={"items": counts.core})
    return counts


def _order_tables(manifest: Manifest) -> list[File]:
    """Return the tables, those of the first items last, as the first table names the items."""
    files = manifest.list_tables()
    if manifest.counts.core is not None:
        files.sort(key=lambda file: file.table in OF_CORE)
    return files


class ReferenceCheck(RowCheck):
    """Foreign keys: ids must exist in the tables of users and items."""

    def check_rows(self, part: pa.Table, first: int) -> str:
        for column, numbered in COUNTED.items():
            if column not in part.column_names:
                continue
            ids = part[column].to_numpy()
            wrong = np.flatnonzero(ids >= _count_of(self.counts, numbered))
            if wrong.size:
                row = int(wrong[0])
                return f"row {first + row}: {column} {ids[row]} is no {numbered}"
        return ""


class NameIndex:
    """Names of items or users in the first table that has them; the reference for all others."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._owner: object = None
        self._chunks: list[pa.Array] = []

    def find_difference(
        self, owner: object, first: int, names: pa.ChunkedArray
    ) -> tuple[int, str] | None:
        """Return the first row from `first` on whose name differs, and the reference name."""
        if self._owner in (None, owner):
            self._owner = owner
            self._chunks += names.chunks
            return None

        expected = pa.chunked_array(self._chunks, pa.string()).slice(first, len(names))
        if expected.equals(names):
            return None
        is_equal = pc.equal(expected, names.slice(0, len(expected)))
        row = pc.index(is_equal, False).as_py()
        return None if row < 0 else (first + row, expected[row].as_py())

    @cached_property
    def repeated_name(self) -> str | None:
        """A duplicate name, if any; frees the names, so use it after all comparisons."""
        names = pa.chunked_array(self._chunks, pa.string())
        self._chunks = []
        order = pc.sort_indices(names)  # takes 8 bytes per name, a hash table ten times that
        for start in range(0, len(names) - 1, io.PART):
            block = names.take(order.slice(start, io.PART + 1))
            is_repeated = pc.equal(block.slice(0, len(block) - 1), block.slice(1))
            row = pc.index(is_repeated, True).as_py()
            if row >= 0:
                return str(block[row])
        return None


class IdCheck(RowCheck):
    """Ids must be dense, ascending, and have the same names in every table."""

    def __init__(self, where: str, counts: Counts, numbered: str, names: NameIndex) -> None:
        super().__init__(where, counts)
        self._numbered = numbered
        self._names = names
        self._rows = 0
        self._has_names = False  # users can be unnamed
        self._order_fault = ""
        self._name_fault = ""

    def check_rows(self, part: pa.Table, first: int) -> str:
        start = self._rows
        self._rows += len(part)
        self._order_fault = self._order_fault or self._compare_ids(part, start)
        self._name_fault = self._name_fault or self._compare_names(part, start)
        return ""

    def _compare_ids(self, part: pa.Table, start: int) -> str:
        column = f"{self._numbered}_id"
        ids = part[column].to_numpy()
        wrong = np.flatnonzero(ids != np.arange(start, self._rows))
        if not wrong.size:
            return ""
        row = int(wrong[0])
        return f", row {start + row}: {column} {ids[row]}, expected {start + row}"

    def _compare_names(self, part: pa.Table, start: int) -> str:
        column = self._names.column
        self._has_names = column in part.column_names
        if not self._has_names:
            return ""
        difference = self._names.find_difference(self, start, part[column])
        if difference is None:
            return ""
        row, expected = difference
        name = part[column][row - start].as_py()
        return f", row {row}: {column} {name!r}, elsewhere {expected!r}"

    def find_fault(self) -> str:
        expected = _count_of(self.counts, self._numbered)
        if self._rows != expected:
            return f"{self.where}: {self._rows} rows, expected {expected}"
        fault = self._order_fault or self._name_fault
        if fault:
            return f"{self.where}{fault}"

        repeated = self._names.repeated_name if self._has_names else None
        if repeated is None:
            return ""
        return f"{self.where}: {self._names.column} {repeated!r} is there twice"


class EdgeCheck(ReferenceCheck):
    """Edges must be sorted by item and rank, with at least one edge per item."""

    _last_item = -1
    _last_rank = 0
    _fault = ""

    def check_rows(self, part: pa.Table, first: int) -> str:
        unknown = super().check_rows(part, first)
        if unknown or not len(part):
            return unknown

        item = part["item_id"].to_numpy().astype(np.int64)
        rank = part["rank"].to_numpy().astype(np.int64)
        item_before = np.append(self._last_item, item[:-1])
        rank_before = np.append(self._last_rank, rank[:-1])
        is_next_rank = (item == item_before) & (rank == rank_before + 1)
        is_next_item = (item == item_before + 1) & (rank == 0)
        wrong = np.flatnonzero(~(is_next_rank | is_next_item))

        if wrong.size and not self._fault:
            row = int(wrong[0])
            edge = f"rank {rank[row]} of item {item[row]}"
            self._fault = f"{self.where}, row {first + row}: {edge} is not the next edge"
            if item[row] > item_before[row] + 1:
                self._fault = self._without_edge(item_before[row] + 1)
        self._last_item = int(item[-1])
        self._last_rank = int(rank[-1])
        return ""

    def find_fault(self) -> str:
        if self._fault:
            return self._fault
        next_item = self._last_item + 1
        return "" if next_item == self.counts.items else self._without_edge(next_item)

    def _without_edge(self, item: int) -> str:
        return f"{self.where}: no edge of item {item}"


class VectorCheck(RowCheck):
    """A feature set must have a non-zero vector."""

    _is_present = False

    def check_rows(self, part: pa.Table, first: int) -> str:
        self._is_present = self._is_present or bool(io.matrix(part["vector"]).any())
        return ""

    def find_fault(self) -> str:
        if self._is_present:
            return ""
        return f"{self.where}: every vector is zero; leave it out of publish.features"


class CodeCheck(RowCheck):
    """Codes, suffix and status must be consistent, and pairs of codes and suffix unique."""

    def __init__(self, where: str, counts: Counts) -> None:
        super().__init__(where, counts)
        self._suffixed_codes: list[np.ndarray] = []

    def check_rows(self, part: pa.Table, first: int) -> str:
        codes_column = part["codes"].combine_chunks()
        suffix = part["suffix"].combine_chunks()
        is_coded = codes_column.is_valid().to_numpy(zero_copy_only=False)
        has_suffix = suffix.is_valid().to_numpy(zero_copy_only=False)
        levels = codes_column.type.list_size
        codes = np.full((len(part), levels), -1, np.int32)
        codes[is_coded] = codes_column.drop_null().flatten().to_numpy().reshape(-1, levels)

        wrong = is_coded != pc.equal(part["status"], "coded").to_numpy()
        wrong |= has_suffix & ~is_coded
        wrong |= is_coded & (codes < 0).any(axis=1)
        if wrong.any():
            return f"row {first + wrong.argmax()}: codes, suffix and status do not agree"
        suffixes = suffix.drop_null().to_numpy()
        self._suffixed_codes.append(np.column_stack([codes[has_suffix], suffixes]))
        return ""

    def find_fault(self) -> str:
        if not self._suffixed_codes:
            return ""
        rows = np.concatenate(self._suffixed_codes)
        repeated = len(rows) - len(np.unique(rows, axis=0))
        if not repeated:
            return ""
        return f"{self.where}: {repeated:,} items have the codes and suffix of another"


# kind of table -> check of constraints beyond its schema
CONTENT_CHECKS: dict[str, type[RowCheck]] = {
    "interactions": ReferenceCheck,
    "features": VectorCheck,
    "edges": EdgeCheck,
    "semantic_ids": CodeCheck,
}
