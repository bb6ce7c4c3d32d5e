"""Semantic IDs of a release: `Release.semantic_ids`. Letters: I items, F width, L levels, K codes a level."""

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import schemas
from alignrec.vectors import checked, similar
from pipeline import io
from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows
from pipeline.release.semantic_ids import NONE, encoded, id_fault
from pipeline.semantic_ids import files
from pipeline.semantic_ids.base import Method


class SemanticIds:
    """Items of one feature set as L codes of K values, and the codebooks that made them."""

    def __init__(self, folder: str | Path) -> None:
        """Read the three files that a release or `save` wrote, codebooks on first use; UserError if damaged."""
        self.folder = Path(folder)
        self.facts = files.facts(self.folder)
        path = self.folder / files.IDS
        try:
            self.table: pa.Table = io.read_table(path, schemas.semantic_ids(self.facts.levels))
        except schemas.ContractError as e:
            raise UserError(f"{e}; make or fetch it again") from None
        if fault := id_fault([self.table], self.facts):
            raise UserError(f"{path}: {fault}; make or fetch it again")

    @property
    def method(self) -> str:
        """What coded them, such as residual-kmeans."""
        return self.facts.method

    @property
    def levels(self) -> int:
        """Codes an item, L."""
        return self.facts.levels

    @property
    def size(self) -> int:
        """Values of a code, K."""
        return self.facts.codes

    @property
    def quality(self) -> Mapping[str, Any]:
        """The judgement of the codes, as codes.json has it."""
        return self.facts.quality

    @cached_property
    def ids(self) -> np.ndarray:
        """Identifier of each item, str [I], dtype object."""
        return np.fromiter(self.table["asin"].to_pylist(), object)

    @cached_property
    def codes(self) -> np.ndarray:
        """The codes, int32 [I, L]; an item without content has -1 in each."""
        rows, coded = files.matrix(self.table)
        every = np.full((len(self.table), self.levels), NONE, np.int32)
        every[rows] = coded
        return every

    @cached_property
    def suffix(self) -> np.ndarray | None:
        """The suffix of items with equal codes, int32 [I], -1 without content; None: there are none."""
        if self.facts.collisions != "suffix":
            return None
        return np.asarray(self.table["suffix"].fill_null(NONE).to_numpy(), np.int32)

    def of(self, asin: str) -> tuple[int, ...] | None:
        """Return the codes and suffix of an item, None without content; UserError for an unknown item."""
        if asin not in self._rows:
            raise UserError(f"no item '{asin}' among the semantic IDs{similar(asin, self._rows)}")
        row = self._rows[asin]
        if self.codes[row, 0] == NONE:
            return None
        return (*self.codes[row].tolist(), *([] if self.suffix is None else [int(self.suffix[row])]))

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Return the codes of vectors of any length, float [N, F] -> int32 [N, L]; -1 for those without a direction.

        A new item may get the codes of an existing one, after which it is to be numbered by the caller.

        Raises:
            UserError: vectors of another width or not finite; or a dependency of the method is not installed.
        """
        x = checked(vectors)
        if x.shape[1] != self.facts.width:
            raise UserError(f"vectors: {x.shape[1]} numbers each, and the codebooks are for {self.facts.width}")
        return encoded(self._method, x, self.levels)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return vectors of length 1, zeros for an item without an ID: int [N, L], -1 or 0 .. K-1 -> float32 [N, F].

        Raises:
            UserError: codes of another shape or range; or a dependency of the method is not installed.
        """
        given = np.asarray(codes)
        if given.ndim != 2 or given.shape[1] != self.levels or given.dtype.kind not in "iu":
            raise UserError(f"codes: {given.dtype} {given.shape}; give whole numbers [items, {self.levels}]")
        there = ~(given == NONE).all(axis=1)
        outside = there & ((given < 0) | (given >= self.size)).any(axis=1)
        if outside.any():
            row = int(outside.argmax())
            raise UserError(f"codes, row {row}: {given[row].tolist()}; give 0 .. {self.size - 1}")
        x = np.zeros((len(given), self.facts.width), np.float32)
        if there.any():
            x[there] = unit_rows(self._method.decode(given[there].astype(np.int32)))[0]
        return x

    def save(self, folder: str | Path) -> None:
        """Copy the three files to a folder, for `SemanticIds(folder)`; UserError if one of them exists there."""
        to = Path(folder)
        if present := [name for name in files.NAMES if (to / name).exists()]:
            raise UserError(f"{to / present[0]}: exists already; name another folder, or delete it")
        to.mkdir(parents=True, exist_ok=True)
        for name in files.NAMES:  # the last says that all are there
            with io.atomic(to / name) as temporary:
                shutil.copyfile(self.folder / name, temporary)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        shape = f"{self.levels} levels x {self.size} codes"
        return f"<SemanticIds {self.facts.features} by {self.method}: {len(self):,} items, {shape}>"

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids.tolist())}

    @cached_property
    def _method(self) -> Method:
        return files.load(self.folder).method
