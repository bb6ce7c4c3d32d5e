"""Another feature set, mapped linearly to collaborative factors of train interactions.

R is the train matrix, its rows and columns scaled by the inverse root of their counts. The factors are its leading
right singular vectors, and ridge regression gives the map from vectors to factors. Items without train interactions
are not fitted on; all are mapped.

Letters: U users, I items, T items with train interactions, F and W widths.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from scipy import linalg, sparse

import schemas
from pipeline import io
from pipeline.config.base import Name, Positive, Rate, Section
from pipeline.errors import UserError
from pipeline.features.node import Node
from pipeline.features.whitened import Fitted
from pipeline.interactions.cooccurrence import user_item_matrix
from pipeline.layout import Layout
from pipeline.ops import whitening
from pipeline.ops.linalg import limited, right_vectors
from pipeline.ops.whitening import Whitening
from pipeline.seeds import seed_for


class MappedParams(Section):
    """Settings of kind `mapped`."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""
    factors: Positive = 128
    """singular vectors at most, fewer if train interactions have a lower rank; the width of the set"""
    ridge: Rate = 1.0
    """added to every variance, as a share of the mean variance"""


class Mapped(Fitted):
    """A feature set's vectors, mapped to the factors of train interactions."""

    Params = MappedParams
    own: MappedParams
    relearns = True

    def inputs(self) -> list[Path]:
        return [*super().inputs(), self.layout.interactions]

    @property
    def learned(self) -> bool:
        return True

    def fit(self) -> Whitening:
        return self._fit(np.zeros(0, np.int64))

    def relearned(self, cold: np.ndarray) -> np.ndarray:
        fitted = self._fit(cold)
        return np.concatenate([whitening.applied(fitted, x) for x in self.vectors()])

    def _fit(self, cold: np.ndarray) -> Whitening:
        goal = targets(self, self.own.factors, cold)
        if not (goal.known & np.concatenate([x.any(axis=1) for x in self.vectors()])).any():
            raise UserError(
                f"'encoders.{self.name}': no item of {self.layout.dataset} has both train interactions and a vector of "
                f"{self.own.of}; leave it out"
            )
        return fit_map(self.vectors, goal, self.own.ridge)


class Targets(NamedTuple):
    """Targets of the regression."""

    factors: np.ndarray  # float64 [I, W]
    known: np.ndarray  # bool [I], items with train interactions


def targets(node: Node, width: int, cold: np.ndarray) -> Targets:
    """Return at most `width` factors, without the interactions of items `cold`, int [C]."""
    n_items = len(io.read_table(node.layout.item_ids, schemas.ITEM_IDS))
    user, item = train_pairs(node.layout, cold)
    seed = seed_for(node.kind, node.layout.dataset, node.params.seed)
    known = np.bincount(item, minlength=n_items) > 0
    return Targets(
        factors(user_item_matrix(user, item, n_items), width, seed) if known.any() else np.zeros((0, 0)), known
    )


def fit_map(vectors: Callable[[], Iterable[np.ndarray]], targets: Targets, strength: float) -> Whitening:
    """Fit the map to items with targets and a vector; `vectors` returns all, float32 [n, F] at a time, twice."""

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for x in vectors():
            here = slice(start, start + len(x))
            known = targets.known[here] & x.any(axis=1)
            yield x[known], targets.factors[here][known]
            start += len(x)

    return ridge(pairs, strength)


def train_pairs(layout: Layout, cold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return user and item of train interactions, int32 [n] each, except of items `cold`, int [C]."""
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    rows = rows.filter(pc.equal(rows["split"], schemas.TRAIN))
    user, item = rows["user_id"].to_numpy(), rows["item_id"].to_numpy()
    kept = ~np.isin(item, cold)
    return user[kept], item[kept]


def factors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return R's leading right singular vectors times the root of T: float64 [I, W], zero for other items.

    `matrix`, not empty, is [U, I], 1 where a user has an item in train; the seed starts ARPACK and affects last bits.
    """
    scaled = matrix.astype(np.float64)
    users, items = scaled.sum(axis=1), scaled.sum(axis=0)
    left, right = (sparse.diags_array(1 / np.sqrt(np.maximum(1, counts))) for counts in (users, items))
    vectors = right_vectors(sparse.csr_array((left @ scaled @ right).tocsr()[:, items > 0]), width, seed)
    out = np.zeros((len(items), vectors.shape[1]))
    out[items > 0] = vectors * np.sqrt(len(vectors))
    return out


def ridge(pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], strength: float) -> Whitening:
    """Return the ridge regression from centred x to centred y.

    Memory grows with F (F + W), not with rows. One thread: the order of sums decides the last bits.

    Args:
        pairs: returns all rows, x float32 [n, F] and y float64 [n, W] at a time; called twice.
        strength: penalty, as a share of the mean variance of x.
    """
    with limited(1):
        sums = [(len(x), x.sum(axis=0, dtype=np.float64)) for x, _ in pairs()]
        n = max(1, sum(n for n, _ in sums))  # of no rows the map is zero
        mean = np.asarray(sum(total for _, total in sums)) / n
        products = np.zeros((len(mean), len(mean)))
        crossed: np.ndarray | float = 0.0
        for x, y in pairs():  # a second pass: the mean may be large compared with the variance
            centred = x - mean
            products += centred.T @ centred / n
            crossed = crossed + centred.T @ y / n
        variance = np.trace(products) / len(mean)
        penalty = strength * variance if variance > 0 else 1.0  # vectors that do not vary
        solved = linalg.solve(products + penalty * np.eye(len(mean)), crossed, assume_a="pos")
    return Whitening(mean.astype(np.float32), solved.astype(np.float32))
