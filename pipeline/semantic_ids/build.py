"""Codes one feature set by one method: codebooks are learned, all items coded, collisions settled.

I items, n of them with content, F width, L levels, K codes a level.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.config.base import Section, checked
from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows
from pipeline.semantic_ids import collisions, kmeans
from pipeline.semantic_ids.base import Method, Shape, Vectors
from pipeline.semantic_ids.params import SemanticIds
from pipeline.semantic_ids.registry import METHODS

ROWS = 8192
EQUAL = 1e-6
"""tolerance for rounding, between unit vectors"""
FEW = 0.1
"""least share of the possible codes that a level uses, else it has collapsed"""
LEAVE_OUT = "leave it out of 'semantic_ids.features'"


def settings(params: SemanticIds, method: str) -> Section:
    return checked(METHODS[method].Params, params.settings.get(method, {}), f"semantic_ids.settings.{method}")


def vectors(folder: Path, fit_rows: int, seed: int, paths: pa.ChunkedArray | None = None) -> tuple[Vectors, np.ndarray]:
    """Return the vectors of a feature set that have a direction, and which of all items have one, bool [I].

    `fit_rows` bounds the sample; `paths` are the items' categories. UserError for no direction, or a single one.
    """
    directed = np.concatenate([unit_rows(x)[1] for x in io.read_vectors(folder, ROWS)])
    n = int(directed.sum())
    if not n:
        raise UserError(f"{folder}: no item has content, so there is nothing to code; {LEAVE_OUT}")

    def blocks() -> Iterator[np.ndarray]:
        for x in io.read_vectors(folder, ROWS):
            units, usable = unit_rows(x)
            if usable.any():
                yield units[usable]

    drawn = np.zeros(n, bool)
    drawn[np.random.default_rng(seed).choice(n, min(n, fit_rows), replace=False)] = True
    sample, at, row = np.empty((int(drawn.sum()), io.width(folder)), np.float32), 0, 0
    first, differ = next(iter(blocks()))[0], False
    for x in blocks():
        part = x[drawn[at : at + len(x)]]
        sample[row : row + len(part)] = part
        at, row = at + len(x), row + len(part)
        differ = differ or bool(np.abs(x - first).max() > EQUAL)
    if not differ and n > 1:
        raise UserError(f"{folder}: the vectors of all {n:,} items are equal, so no code separates them; {LEAVE_OUT}")
    return Vectors(blocks, n, sample, paths.filter(pa.array(directed)).to_pylist() if paths else ()), directed


class Coding(NamedTuple):
    """The codes of n items."""

    assigned: np.ndarray
    """int32 [n, L], from the method"""
    codes: np.ndarray
    """int32 [n, L], after the policy on collisions"""
    suffix: np.ndarray | None
    """int32 [n]; None where the policy adds none"""
    cosines: np.ndarray
    """float32 [n], of vector and reconstruction"""


def coded(method: Method, given: Vectors, policy: str) -> Coding:
    assigned = method.assign(given)
    codes = reassigned(method, given, assigned) if policy == "reassign" else assigned
    suffix = collisions.suffixes(codes) if policy == "suffix" else None
    cosines, at = [], 0
    for x in given.blocks():
        decoded = unit_rows(method.decode(codes[at : at + len(x)]))[0]
        cosines.append(np.einsum("nf,nf->n", x, decoded))
        at += len(x)
    return Coding(assigned, codes, suffix, np.concatenate(cosines).astype(np.float32))


def reassigned(method: Method, given: Vectors, codes: np.ndarray) -> np.ndarray:
    """Return codes, int32 [n, L], as few of them equal as possible: settled by distance, in one pass."""
    k = method.last(given.sample[:1], codes[:1]).shape[1]
    moves = collisions.moving(codes, k)

    def distances() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        at = 0
        for whole in given.blocks():
            for x in kmeans.blocks(whole, k):
                here = np.flatnonzero(moves[at : at + len(x)])
                if len(here):
                    yield at + here, method.last(x[here], codes[at + here])
                at += len(x)

    return collisions.reassigned(codes, distances())


def collapsed(codes: np.ndarray, k: int) -> Iterator[str]:
    """Yield what is wrong with each level of int32 [n, L] that uses few of the codes it could, and what to do."""
    possible = min(k, len(codes))
    for level, column in enumerate(codes.T, start=1):
        used = len(np.unique(column))
        if used <= FEW * possible or used == 1 < possible:
            cause = "the levels before leave nothing to code" if level > 1 else "few vectors differ"
            cure = "give fewer 'semantic_ids.levels'" if level > 1 else "give fewer 'semantic_ids.codes'"
            yield f"level {level} has collapsed: it uses {used:,} of {k:,} codes, as {cause}; {cure}"


def table(
    ids: pa.Table, directed: np.ndarray, codes: np.ndarray, suffix: np.ndarray | None, cosines: np.ndarray
) -> pa.Table:
    """Return schema semantic_ids(L) of all I items: codes [n, L], suffixes [n] or None, cosines [n] of directed."""
    levels, n = codes.shape[1], len(directed)
    row = np.cumsum(directed) - 1
    every = np.zeros((n, levels), np.int32)
    every[directed] = codes
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(every.reshape(-1)), type=schemas.codes(levels), mask=pa.array(~directed)
    )

    def spread(x: np.ndarray | None, kind: pa.DataType) -> pa.Array:
        if x is None or not len(x):
            return pa.nulls(n, kind)
        return pa.array(x[np.maximum(row, 0)], kind, mask=~directed)

    status = pa.array(np.where(directed, "coded", "no_content"), pa.string())
    columns = [ids["item_id"], ids["asin"], column, spread(suffix, pa.int32()), spread(cosines, pa.float32()), status]
    return pa.table(columns, names=schemas.semantic_ids(levels).names)


def shape(params: SemanticIds) -> Shape:
    return Shape(params.levels, params.codes)
