"""Kind `mapped`: ridge regression of a feature set on factors of train interactions.

I items, F and W widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.kinds.base import (
    Combination,
    Derived,
    SetKind,
    SetRecipe,
    interactions_if_any,
)
from alignrec.pipeline.features.kinds.fitted import make_fitted, map_of_one
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import Whitening
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

MAX_FACTORS = 128  # of the set, which has fewer if train interactions have a lower rank
PENALTY = 1.0  # of the ridge regression, as a fraction of the mean variance of a column


class Mapped(Derived):
    """Settings of kind `mapped`: a feature set mapped by ridge regression to factors of training
    interactions.
    """


def make_mapped(recipe: SetRecipe) -> Combination:
    layout = recipe.layout
    fitted = fit_mapped(layout, recipe.parts[0], seed_for("mapped", layout.dataset, recipe.seed))
    return make_fitted(recipe, map_of_one(fitted), {"seed": recipe.seed})


def fit_mapped(
    layout: Layout, part: FeatureSet, seed: int, cold: Sequence[int] | np.ndarray = ()
) -> Whitening:
    """Fit a set's map without the interactions of items `cold`, int [C].

    Raises UserError if no item is left.
    """
    from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
    from alignrec.pipeline.features.kinds.factors import collaborative_factors

    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    columns = ["user_id", "item_id", "split"]
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, columns)
    user, item, split = (rows[column].to_numpy() for column in columns)
    is_used = (split == schemas.TRAIN) & ~np.isin(item, cold)
    user, item = user[is_used], item[is_used]

    is_fitted = np.bincount(item, minlength=n_items) > 0
    is_fitted &= np.concatenate([vectors.any(axis=1) for vectors in part.vectors()])
    if not is_fitted.any():
        raise UserError(
            f"no item of {layout.dataset} has both train interactions and a vector of {part.name}; "
            "leave it out"
        )

    factors = collaborative_factors(user_item_matrix(user, item, n_items), MAX_FACTORS, seed)

    def read_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for vectors in part.vectors():
            stop = start + len(vectors)
            fitted = is_fitted[start:stop]
            yield vectors[fitted], factors[start:stop][fitted]
            start = stop

    return fit_ridge(read_pairs, PENALTY)


def fit_ridge(
    read_pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], strength: float
) -> Whitening:
    """Fit a ridge regression from centred x, float32 [n, F], to centred y, float64 [n, W], given in
    blocks.
    """
    from scipy.linalg import solve

    with threadpool_limits(1):  # several threads would change the order of sums
        sums = [(len(x), x.sum(axis=0, dtype=np.float64)) for x, _ in read_pairs()]
        n = sum(count for count, _ in sums)
        mean = np.asarray(sum(total for _, total in sums)) / n

        # a second pass, because the mean may be large compared with the variance; memory does not
        # grow with rows
        products = np.zeros((len(mean), len(mean)))
        crossed: np.ndarray | float = 0.0
        for x, y in read_pairs():
            centred = x - mean
            products += centred.T @ centred / n
            crossed = crossed + centred.T @ y / n

        variance = np.trace(products) / len(mean)
        penalty = strength * variance if variance > 0 else 1.0  # constant vectors
        solution = solve(products + penalty * np.eye(len(mean)), crossed, assume_a="pos")

    return Whitening(mean.astype(np.float32), solution.astype(np.float32))


def refit_mapped(layout: Layout, name: str, cold: np.ndarray) -> np.ndarray:
    facts = FeatureSet.of(layout, name).facts
    part = FeatureSet.of(layout, facts.parts[0])
    seed = seed_for("mapped", layout.dataset, int(facts.settings["seed"]))
    fitted = fit_mapped(layout, part, seed, cold)
    return np.concatenate([fitted.apply(vectors) for vectors in part.vectors()])


MAPPED = SetKind("mapped", make_mapped, Mapped, files=interactions_if_any, refit=refit_mapped)
