"""Semantic IDs of one feature set by one method, for the exports that generative recommenders read.

I items, L levels, K codes a level.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.release import manifest as manifests
from pipeline.release import semantic_ids
from pipeline.release.semantic_ids import id_fault
from pipeline.report.words import CONTROLS
from pipeline.semantic_ids import files
from pipeline.semantic_ids.base import Vectors
from pipeline.semantic_ids.collisions import suffixes
from pipeline.semantic_ids.registry import METHODS

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Settled(NamedTuple):
    """Codes for a format that has no place for a suffix."""

    codes: np.ndarray
    """int32 [I, L]"""
    shared: int
    cost: str
    """what that took, in a sentence; empty where nothing was changed"""


@dataclass(frozen=True)
class Codes:
    """Semantic IDs, and what made them."""

    facts: files.Facts
    table: pa.Table
    """schema semantic_ids(L), I rows"""
    folder: Path

    @property
    def coded(self) -> np.ndarray:
        return np.asarray(self.table["codes"].is_valid().to_numpy())

    def matrix(self) -> np.ndarray:
        """Return the codes, int32 [I, L], of items that all have an ID."""
        return files.matrix(self.table)[1]

    def numbered(self) -> np.ndarray:
        """Return codes and a last one that separates items of equal codes, whatever the policy: int32 [I, L + 1]."""
        known = self.facts.collisions == "suffix"
        last = self.table["suffix"].to_numpy() if known else suffixes(self.matrix())
        return np.column_stack([self.matrix(), last])

    def settled(self, x: np.ndarray) -> Settled:
        """Return codes as few of them equal as possible, unless the policy is to keep them.

        Args:
            x: float32 [I, F], what was coded.
        """
        codes = self.matrix()
        before = shared(codes)
        if self.facts.collisions != "suffix" or not before:
            return Settled(codes, before, "")
        from pipeline.semantic_ids.build import reassigned  # loads FAISS

        method, units = files.load(self.folder).method, unit_rows(x)[0]
        moved = reassigned(method, Vectors(lambda: [units], len(units), units), codes)
        rows = (moved != codes).any(axis=1)
        old, new = (float(semantic_ids.cosines(method, x[rows], of[rows]).mean()) for of in (codes, moved))
        cost = (
            f"Of {before:,} items that share their {self.facts.levels} codes with another, {rows.sum():,} take the "
            f"nearest free last code; the cosine of vector and codes is {new:.3f} for these, {old:.3f} before."
        )
        return Settled(moved, shared(moved), cost)

    def described(self) -> str:
        made = self.facts
        last = {
            "suffix": "; a last code separates items of equal codes",
            "keep": "; items may share an ID",
            "reassign": "; of items with equal codes the later took another last code where one was free",
        }[made.collisions]
        return f"`{made.features}` by {made.method}: {made.levels} codes of 0 .. {made.codes - 1}{last}"


def shared(codes: np.ndarray) -> int:
    """Return how many items of int32 [I, L] share all codes with another."""
    _, at, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return int((counts[at.reshape(-1)] > 1).sum())


def tokens(codes: np.ndarray) -> list[list[str]]:
    """Return the codes [I, N] of each item as tokens, `<a_12>` for the first, `<b_3>` for the second, and so on."""
    return [[f"<{LETTERS[at]}_{code}>" for at, code in enumerate(row)] for row in codes.tolist()]


def of_dataset(layout: Layout, features: list[str], method: str | None) -> Codes:
    paths = sorted(layout.semantic_ids("*", "*").parents[1].glob(f"*/*/{files.FACTS}"))
    made = [(path.parents[1].name, path.parent.name) for path in paths]
    wanted = features or [name for name in layout.feature_sets() if name not in CONTROLS][:1]
    if not (made or wanted):
        raise UserError(f"{layout.dataset}: no feature set to code; run `alignrec encode {layout.dataset}` first")
    key = _chosen(made, features, method, files.how_to_make(layout.dataset, wanted))
    codes = _read(layout.semantic_ids(*key))
    if io.digest(io.shards(layout.features(key[0]), "features")) != codes.facts.features_sha256:
        raise UserError(
            f"{layout.semantic_ids(*key)}: made from other vectors of '{key[0]}' than those there now; "
            f"run `alignrec semantic_ids {layout.dataset}` again"
        )
    return codes


def of_release(release: Path, features: list[str], method: str | None) -> Codes:
    manifest = manifests.load(release)
    key = _chosen(semantic_ids.names(manifest), features, method, "its publisher may code its feature sets")
    return _read(semantic_ids.folder_of(release, manifest, *key))


def _chosen(made: list[tuple[str, str]], features: list[str], method: str | None, remedy: str) -> tuple[str, str]:
    """Return the one feature set with codes, and its first method, unless others are asked for; or UserError."""
    there = ", ".join(f"{name} by {own}" for name, own in made)
    fitting = [key for key in made if (not features or key[0] in features) and method in (None, key[1])]
    if not fitting:
        wanted = f" of {', '.join(features)}" * bool(features) + f" by {method}" * (method is not None)
        raise UserError(f"no semantic IDs{wanted}; there are {there or f'none: {remedy}'}")
    if len(sets := sorted({name for name, _ in fitting})) > 1:
        raise UserError(f"several feature sets have semantic IDs; choose one with --features: {', '.join(sets)}")
    order = list(METHODS)
    return min(fitting, key=lambda key: order.index(key[1]) if key[1] in order else len(order))


def _read(folder: Path) -> Codes:
    made = files.facts(folder)
    table = io.read_table(folder / files.IDS, schemas.semantic_ids(made.levels))
    if fault := id_fault([table], made):
        raise UserError(f"{folder / files.IDS}: {fault}; make it again")
    return Codes(made, table, folder)
