"""Released codes beside those of recomputed vectors, for `attest`. B rows, F width, L levels."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import schemas
from pipeline import io
from pipeline.release import semantic_ids
from pipeline.release.manifest import Manifest
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS

AS_SAID = 0.001
"""difference at most between the cosine of vector and codes that the release says, and the recomputed one"""


class CodesRow(NamedTuple):
    """How the codes of one item compare with those of its recomputed vector."""

    agrees: bool
    """whether they stand for it as well as the release says, or neither has a direction"""
    levels: int
    """first codes that are the nearest ones, 0 .. L"""
    nearest: bool
    """whether all are"""


class Codes:
    """Released semantic IDs of one feature set by one method."""

    def __init__(self, folder: Path) -> None:
        """Load the codebooks and read the codes; UserError for what is damaged."""
        self.facts, self._method = files.load(folder)
        table = io.read_table(folder / files.IDS, schemas.semantic_ids(self.facts.levels))
        rows, codes = files.matrix(table)
        self._codes = np.full((len(table), self.facts.levels), semantic_ids.NONE, np.int32)
        self._codes[rows] = codes
        self._said = table["cosine"].fill_null(0).to_numpy()

    def compared(self, x: np.ndarray, at: Sequence[int]) -> list[CodesRow]:
        """Return how recomputed vectors, float32 [B, F], compare with the released codes of rows `at`."""
        codes, said = self._codes[list(at)], self._said[list(at)]
        nearest = semantic_ids.encoded(self._method, x, self.facts.levels)
        same = np.logical_and.accumulate(codes == nearest, axis=1).sum(axis=1)
        both = (codes[:, 0] == semantic_ids.NONE) == (nearest[:, 0] == semantic_ids.NONE)
        agrees = both & (np.abs(semantic_ids.cosines(self._method, x, codes) - said) <= AS_SAID)
        return [CodesRow(bool(a), int(n), bool(n == self.facts.levels)) for a, n in zip(agrees, same, strict=True)]


def load(release: Path, manifest: Manifest, names: Container[str]) -> dict[str, Codes]:
    """Return the codes of some feature sets, `<feature set>/<method>` -> codes; controls say nothing of a vector.

    UserError if a method is unknown here, or what it needs is not installed.
    """
    return {
        f"{name}/{method}": Codes(semantic_ids.folder_of(release, manifest, name, method))
        for name, method in semantic_ids.names(manifest)
        if name in names and (method not in METHODS or not METHODS[method].control)
    }
