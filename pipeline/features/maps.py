"""Fitted maps of feature sets: `linear`, all parts reduced by PCA, and `mapped`, ridge regression on interactions.

U users, I items, n per shard, F and W widths.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import solve
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import profiles
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.features.folder import FeatureSet, joinable_blocks
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import (
    IMAGE,
    POWER,
    Block,
    JoinedMap,
    Whitening,
    right_vectors,
)
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

DRAWS = 5  # splits into cold and warm items; each item is cold in one split
K = 20
FACTORS = (
    128  # upper bound on the set's width, which is lower if training interactions have a lower rank
)
RIDGE = 1.0  # penalty, as a fraction of the mean variance of a column


class LinearSettings(NamedTuple):
    """Settings of `linear`, chosen on validation."""

    power: float  # each direction of a part is divided by its standard deviation to this power
    image: float  # weight of image-only columns, compared with 1 for all others
    reduced: bool  # whether PCA reduces all parts together to one width


# validation only chooses among these: the maps are not fitted to interactions
CHOICES = [
    LinearSettings(*values) for values in product((POWER, 0.3), (IMAGE, 0.3, 1.0), (True, False))
]


def fit_linear(
    layout: Layout, parts: Sequence[FeatureSet], width: int
) -> tuple[JoinedMap, LinearSettings]:
    """Fit with the settings that are best on validation (else the first); raises UserError if no part varies."""
    kept = [part.distinguishes() for part in parts]
    if not any(kept):
        raise UserError(
            f"none of {', '.join(part.name for part in parts)} distinguishes items; leave it out"
        )
    scores = _score_choices(layout, parts, kept, width) if layout.interactions.is_file() else []
    settings = CHOICES[int(np.argmax(scores)) if scores else 0]
    chosen = joinable_blocks(parts, kept, settings.image)
    return projections.fit_blocks(
        lambda: read_parts(parts), chosen, width, settings.power, settings.reduced
    ), settings


def read_parts(parts: Sequence[FeatureSet]) -> Iterator[list[np.ndarray]]:
    """Yield the vectors of all parts, float32 [n, F] each, shard by shard."""
    yield from (list(shard) for shard in zip(*(part.vectors() for part in parts), strict=True))


def _score_choices(
    layout: Layout, parts: Sequence[FeatureSet], kept: Sequence[bool], width: int
) -> list[float]:
    """Return a score per choice: geometric mean of warm and cold content-neighbour recall; none without validation."""
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    user, item, split = (rows[column].to_numpy() for column in ("user_id", "item_id", "split"))
    has, finds = (
        (user[split == part], item[split == part]) for part in (schemas.TRAIN, schemas.VALID)
    )
    warm = profiles.build_profiles(has, finds, profiles.draw_users(finds[0], n_items, 0), n_items)
    if not len(warm.user):
        return []
    cold = profiles.draw_cold_profiles(has, finds, n_items, DRAWS)
    whole = joinable_blocks(parts, kept, IMAGE)
    columns = (
        np.concatenate([x[block.part][:, block.columns] for x in read_parts(parts)])
        for block in whole
    )
    reduced = [
        projections.whiten_rows(x, width, 0) for x in columns
    ]  # power 0, as each `LinearSettings` applies its own
    scores = []
    for settings in CHOICES:
        weights = [settings.image if block.weight == IMAGE else block.weight for block in whole]
        own = [Block(i, np.ones(x.shape[1], bool), weights[i]) for i, x in enumerate(reduced)]
        joined = projections.fit_blocks(
            lambda: [reduced], own, width, settings.power, settings.reduced
        )(reduced)
        of_all = float(np.nanmean(warm.recalls(joined, K)))
        of_cold = (
            np.nanmean(profiles.cold_recalls(cold, joined, K), axis=1).mean() if cold else of_all
        )
        scores.append(round(float(np.sqrt(of_all * of_cold)), 6))
    return scores


def fit_mapped(
    layout: Layout, part: FeatureSet, seed: int, cold: Sequence[int] | np.ndarray = ()
) -> Whitening:
    """Fit a set's map without the interactions of items `cold`, int [C]; raises UserError if no item is left."""
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    user, item, split = (rows[column].to_numpy() for column in ("user_id", "item_id", "split"))
    kept = (split == schemas.TRAIN) & ~np.isin(item, cold)
    known = np.bincount(item[kept], minlength=n_items) > 0
    known &= np.concatenate([x.any(axis=1) for x in part.vectors()])
    if not known.any():
        raise UserError(
            f"no item of {layout.dataset} has both train interactions and a vector of {part.name}; leave it out"
        )
    targets = collaborative_factors(
        user_item_matrix(user[kept], item[kept], n_items), FACTORS, seed
    )

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for x in part.vectors():
            here = slice(start, start + len(x))
            yield x[known[here]], targets[here][known[here]]
            start += len(x)

    return fit_ridge(pairs, RIDGE)


def refit_mapped(layout: Layout, name: str, cold: np.ndarray) -> np.ndarray:
    """Return a mapped set's vectors, float32 [I, W], refitted without the interactions of items `cold`, int [C]."""
    facts = FeatureSet.of(layout, name).facts
    part = FeatureSet.of(layout, facts.parts[0])
    own = fit_mapped(
        layout, part, seed_for("mapped", layout.dataset, int(facts.settings["seed"])), cold
    )
    return np.concatenate([own.apply(x) for x in part.vectors()])


def collaborative_factors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` factors of the items of `matrix`, float32 [U, I]; zero for items without users."""
    # right singular vectors of the matrix, with rows and columns divided by the roots of their counts
    scaled = matrix.astype(np.float64)
    users, items = scaled.sum(axis=1), scaled.sum(axis=0)
    left, right = (
        sparse.diags_array(1 / np.sqrt(np.maximum(1, counts))) for counts in (users, items)
    )
    vectors = right_vectors(
        sparse.csr_array((left @ scaled @ right).tocsr()[:, items > 0]), width, seed
    )
    out = np.zeros((len(items), vectors.shape[1]))
    out[items > 0] = vectors * np.sqrt(len(vectors))
    return out


def fit_ridge(
    pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], strength: float
) -> Whitening:
    """Fit a ridge regression from centred x, float32 [n, F], to centred y, float64 [n, W], given in blocks."""
    with threadpool_limits(1):  # several threads would change the order of sums
        sums = [(len(x), x.sum(axis=0, dtype=np.float64)) for x, _ in pairs()]
        n = sum(n for n, _ in sums)
        mean = np.asarray(sum(total for _, total in sums)) / n
        products = np.zeros((len(mean), len(mean)))
        crossed: np.ndarray | float = 0.0
        # a second pass, because the mean may be large compared with the variance; memory does not grow with rows
        for x, y in pairs():
            centred = x - mean
            products += centred.T @ centred / n
            crossed = crossed + centred.T @ y / n
        variance = np.trace(products) / len(mean)
        penalty = strength * variance if variance > 0 else 1.0  # constant vectors
        solved = solve(products + penalty * np.eye(len(mean)), crossed, assume_a="pos")
    return Whitening(mean.astype(np.float32), solved.astype(np.float32))
