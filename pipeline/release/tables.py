"""Checks the tables of a release, which are untrusted, some rows at a time.

What is held are these rows and, of all tables together, the names of items and of users once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.release import manifest as manifests
from pipeline.release.manifest import Counts, File, Manifest

SMALL, EXPANSION = 1 << 30, 10_000
"""bytes of memory that any table may take, and the largest ratio to its size on disk of a larger one; equal vectors
have a few hundred"""
HELD = 16 << 20
"""bytes of a table that are read at a time, about"""
BLANK = "every vector is zero; leave it out of publish.features"
CHANGED = "rows or columns are not as the manifest says"


class Fold(Protocol):
    """A check of a table's rows, part by part."""

    def add(self, part: pa.Table, first: int) -> str:
        """Check the next rows, numbered from `first`; return a fault, which ends the reading, or an empty string."""


def faults(folder: Path, manifest: Manifest) -> list[str]:
    """Return the faults of single tables; else those of ids across tables; else those of vectors; else of edges."""
    groups = defaultdict[str, list[File]](list)
    for file in manifest.files:
        if file.table is not None:
            groups[_numbered(file)].append(file)
    names = {column: Names() for column in ("asin", "user")}
    found, ids, vectors, edges = list[str](), list[Ids](), dict[str, Vectors](), list[Edges]()
    for where, files in groups.items():
        own = _ids(where, str(files[0].table), manifest.counts, names)
        ids += own
        for file in files:
            folds: list[Fold] = [*own]
            if file.table in ("edges", "interactions"):
                folds.append(References(str(file.table), manifest.counts))
            if file.table == "edges":
                edges.append(Edges(file.path, manifest.counts.items))
                folds.append(edges[-1])
            if file.table == "features":
                folds.append(vectors.setdefault(f"features/{file.feature_set}", Vectors()))
            if fault := _fault(folder / file.path, file, manifest.counts, folds):
                found.append(f"{file.path}: {fault}")
    found = found or [fault for own in ids if (fault := own.fault())]
    found = found or [f"{name}: {BLANK}" for name, one in vectors.items() if not one.present]
    return found or [fault for one in edges if (fault := one.fault())]


def _numbered(file: File) -> str:
    """Return across what ids are numbered: the folder of a feature set, else the file."""
    return file.path.rpartition("/")[0] if file.table in ("features", "features_half") else file.path


def _ids(where: str, table: str, counts: Counts, names: Mapping[str, Names]) -> list[Ids]:
    if table in ("edges", "interactions", "tried"):
        return []
    if table in ("users", *manifests.USER_VECTORS):
        return [Ids(where, "user_id", counts.users, "user", names["user"])]
    return [Ids(where, "item_id", counts.items, "asin", names["asin"])]


def _fault(path: Path, file: File, counts: Counts, folds: Sequence[Fold]) -> str:
    try:
        if manifests.shape(path) != (file.rows, file.columns):
            return CHANGED
        fields = pq.read_schema(path)
        widths = [f.type.list_size for f in fields if pa.types.is_fixed_size_list(f.type)]
        row = 4 * (len(fields) + sum(widths))
        if (memory := row * int(file.rows or 0)) > max(SMALL, EXPANSION * file.bytes):
            return f"takes {memory:,} bytes of memory, from {file.bytes:,} on disk"
        if file.table == "interactions" and file.rows != counts.interactions:
            return f"{file.rows} rows, expected {counts.interactions}"
        schema, first = manifests.TABLES[str(file.table)](widths[0] if widths else 1), 0
        for part in io.read_slices(path, schema, None, max(1, min(io.PART, HELD // row))):
            part.validate(full=True)  # text that is no UTF-8, lists that reach beyond their values
            for fold in folds:
                if fault := fold.add(part, first):
                    return fault
            first += len(part)
        return "" if first == file.rows else CHANGED
    except (UserError, schemas.ContractError, pa.ArrowException, OSError, ValueError, KeyError) as e:
        fault = str(e).removeprefix(f"{path}").removeprefix(":").removesuffix("; make it first")
        return " ".join(fault.split())  # Arrow's have several lines


class References:
    """Ids of a table that are those of other tables."""

    def __init__(self, table: str, counts: Counts) -> None:
        self._known = {"item_id": ("item", counts.items)}
        more = ("neighbour_id", "item", counts.items) if table == "edges" else ("user_id", "user", counts.users)
        self._known[more[0]] = more[1:]

    def add(self, part: pa.Table, first: int) -> str:
        for column, (what, count) in self._known.items():
            wrong = np.flatnonzero(part[column].to_numpy() >= count)
            if wrong.size:
                return f"row {first + wrong[0]}: {column} {part[column][int(wrong[0])]} is no {what}"
        return ""


class Vectors:
    """Whether a feature set has any vector that is not zero."""

    present = False

    def add(self, part: pa.Table, first: int) -> str:
        self.present = self.present or bool(io.matrix(part["vector"]).any())
        return ""


class Names:
    """The names of items or users, from the first table that has them, with which all others are compared."""

    def __init__(self) -> None:
        self._owner: object = None
        self._chunks: list[pa.Array] = []

    def differing(self, owner: object, first: int, names: pa.ChunkedArray) -> tuple[int, str] | None:
        """Return the first row, and the name there, where rows from `first` on have other names than here."""
        if self._owner in (None, owner):
            self._owner = owner
            self._chunks += names.chunks
            return None
        known = self._column.slice(first, len(names))
        if known.equals(names):
            return None
        row = pc.index(pc.equal(known, names.slice(0, len(known))), False).as_py()
        return None if row < 0 else (first + row, known[row].as_py())

    @cached_property
    def repeated(self) -> str | None:
        """The first name that occurs twice; frees the names, so that it comes after all comparisons."""
        names, self._chunks = self._column, []
        order, rows = pc.sort_indices(names), []  # 8 bytes a name, where a hash table takes ten times that
        for at in range(0, len(names) - 1, io.PART):
            some = names.take(order.slice(at, io.PART + 1))
            same = pc.indices_nonzero(pc.equal(some.slice(0, len(some) - 1), some.slice(1))).to_numpy()
            rows += order.slice(at).take(pa.array(same)).to_pylist()
        return names[min(rows)].as_py() if rows else None

    @property
    def _column(self) -> pa.ChunkedArray:
        return pa.chunked_array(self._chunks, pa.string())


class Ids:
    """Ids of a table, in one or several files: dense, in order, each with the name that it has elsewhere."""

    def __init__(self, where: str, key: str, expected: int, name: str, names: Names) -> None:
        self._where, self._key, self._expected, self._name, self._names = where, key, expected, name, names
        self._rows, self._wrong, self._other, self._named = 0, "", "", False

    def add(self, part: pa.Table, first: int) -> str:
        numbers, at = part[self._key].to_numpy(), self._rows
        self._rows += len(numbers)
        wrong = np.flatnonzero(numbers != np.arange(at, self._rows))
        if wrong.size and not self._wrong:
            row = int(wrong[0])
            self._wrong = f", row {at + row}: {self._key} {numbers[row]}, expected {at + row}"
        self._named = self._name in part.column_names  # users may have none
        if self._named and not self._other and (found := self._names.differing(self, at, part[self._name])):
            row, elsewhere = found
            own = part[self._name][row - at].as_py()
            self._other = f", row {row}: {self._name} {own!r}, elsewhere {elsewhere!r}"
        return ""

    def fault(self) -> str:
        if self._rows != self._expected:
            return f"{self._where}: {self._rows} rows, expected {self._expected}"
        fault = self._wrong or self._other
        if not fault and self._named and (twice := self._names.repeated) is not None:
            fault = f": {self._name} {twice!r} is there twice"
        return fault and f"{self._where}{fault}"


class Edges:
    """A graph: by item, each edge once, and of each item one at least."""

    def __init__(self, path: str, items: int) -> None:
        self._path, self._items = path, items
        self._item, self._keys = -1, np.empty(0, np.int64)  # the last item, and its edges so far: at most I
        self._gap: int | None = None
        self._fault = ""

    def add(self, part: pa.Table, first: int) -> str:
        item = part["item_id"].to_numpy().astype(np.int64)
        if self._fault or not len(item):
            return ""
        before = np.concatenate([[self._item], item[:-1]])
        if (back := np.flatnonzero(item < before)).size:
            row = int(back[0])
            where = f", row {first + row}: an edge of item {item[row]} after those of {before[row]}"
            self._fault = f"{where}; edges are in item order"
        if self._gap is None and (gaps := np.flatnonzero(item > before + 1)).size:
            self._gap = int(before[gaps[0]]) + 1
        keys = np.concatenate([self._keys, item * self._items + part["neighbour_id"].to_numpy()])
        _, once = np.unique(keys, return_index=True)
        if len(once) < len(keys):
            row = int(np.setdiff1d(np.arange(len(keys)), once)[0])
            a, b = divmod(int(keys[row]), self._items)
            self._fault = f", row {first + row - len(self._keys)}: the edge from {a} to {b} is there twice"
        self._item, self._keys = int(item[-1]), keys[keys >= item[-1] * self._items]
        return ""

    def fault(self) -> str:
        gap = self._item + 1 if self._gap is None else self._gap
        if self._fault or gap == self._items:
            return self._fault and f"{self._path}{self._fault}"
        return f"{self._path}: no edge of item {gap}, not even to itself"
