"""Kind `linear`: all parts reduced by PCA and joined, as validation chooses.

I items, n of a shard, F and W widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.features.blocks import joinable_blocks
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.kinds.base import (
    Combination,
    KindSettings,
    SetKind,
    SetRecipe,
    interactions_if_any,
)
from alignrec.pipeline.features.kinds.fitted import make_fitted
from alignrec.pipeline.features.quality import distinguishes
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import (
    IMAGE_WEIGHT,
    JOINT_POWER,
    JOINT_WIDTH,
    Block,
    JoinedMap,
    fit_blocks,
    whiten_rows,
)
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import Name, Width

if TYPE_CHECKING:
    from alignrec.pipeline.features.profiles import Profiles

COLD_DRAWS = 5  # splits into cold and warm items; each item is cold in one split
CUTOFF = 20  # K of the recall that chooses


class Linear(KindSettings):
    """Settings of kind `linear`: all parts reduced to one width; validation chooses how."""

    of: list[Name] = []
    """feature sets; empty: those of `encode.encoders` and those that come with the source"""
    width: Width = JOINT_WIDTH
    """maximum number of principal components, of each part and of the concatenation"""

    def parts(self) -> list[str]:
        return self.of


class LinearChoice(NamedTuple):
    """What validation chooses."""

    power: float  # each direction of a part is divided by its standard deviation to this power
    image: float  # weight of image-only columns, compared with 1 for all others
    reduced: bool  # whether PCA reduces all parts together to one width


# validation only chooses among these: the maps are not fitted to interactions
CHOICES = [
    LinearChoice(*v) for v in product((JOINT_POWER, 0.3), (IMAGE_WEIGHT, 0.3, 1.0), (True, False))
]


def make_linear(recipe: SetRecipe) -> Combination:
    if not recipe.parts:
        raise UserError(
            "no encoder to build on; list one under encode.encoders, such as tfidf, or leave it out"
        )

    fit, choice = fit_linear(recipe.layout, recipe.parts, recipe.settings.width)
    return make_fitted(recipe, fit, choice._asdict())


def fit_linear(
    layout: Layout, parts: Sequence[FeatureSet], width: int
) -> tuple[JoinedMap, LinearChoice]:
    """Fit with the choice that is best on validation (else the first).

    Raises UserError if no part varies.
    """
    distinct = [distinguishes(part) for part in parts]
    if not any(distinct):
        names = ", ".join(part.name for part in parts)
        raise UserError(f"none of {names} distinguishes items; leave it out")

    best = 0
    if layout.interactions.is_file() and (scores := score_choices(layout, parts, distinct, width)):
        best = int(np.argmax(scores))
    choice = CHOICES[best]
    blocks = joinable_blocks(parts, distinct, choice.image)
    fit = fit_blocks(lambda: read_parts(parts), blocks, width, choice.power, choice.reduced)
    return fit, choice


def read_parts(parts: Sequence[FeatureSet]) -> Iterator[list[np.ndarray]]:
    """Yield the vectors of all parts, float32 [n, F] each, shard by shard."""
    for shard in zip(*(part.vectors() for part in parts), strict=True):
        yield list(shard)


def score_choices(
    layout: Layout, parts: Sequence[FeatureSet], distinct: Sequence[bool], width: int
) -> list[float]:
    """Return a score per choice: geometric mean of warm and cold content-neighbour recall.

    None without validation.
    """
    warm, cold = draw_validation(layout)
    if not len(warm.user):
        return []

    # reduce each block once, by power 0, as each choice applies a power of its own
    blocks = joinable_blocks(parts, distinct, IMAGE_WEIGHT)
    reduced = []
    for block in blocks:
        shards = [shard[block.part][:, block.columns] for shard in read_parts(parts)]
        reduced.append(whiten_rows(np.concatenate(shards), width, 0))

    scores = []
    for choice in CHOICES:
        scaled_blocks = []
        for number, block in enumerate(blocks):
            weight = choice.image if block.weight == IMAGE_WEIGHT else block.weight
            every_column = np.ones(reduced[number].shape[1], bool)
            scaled_blocks.append(Block(number, every_column, weight))
        fit = fit_blocks(lambda: [reduced], scaled_blocks, width, choice.power, choice.reduced)
        scores.append(score_vectors(fit(reduced), warm, cold))
    return scores


def draw_validation(layout: Layout) -> tuple[Profiles, list[Profiles]]:
    """Return profiles of train items whose targets are validation items, and draws of them with
    cold targets.
    """
    from alignrec.pipeline.features import profiles

    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    columns = ["user_id", "item_id", "split"]
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, columns)
    user, item, split = (rows[column].to_numpy() for column in columns)
    train = user[split == schemas.TRAIN], item[split == schemas.TRAIN]
    valid = user[split == schemas.VALID], item[split == schemas.VALID]

    users = profiles.draw_users(valid[0], n_items, 0)
    warm = profiles.build_profiles(train, valid, users, n_items)
    if not len(warm.user):
        return warm, []

    return warm, profiles.draw_cold_profiles(train, valid, n_items, COLD_DRAWS)


def score_vectors(vectors: np.ndarray, warm: Profiles, cold: Sequence[Profiles]) -> float:
    from alignrec.pipeline.features import profiles

    warm_recall = float(np.nanmean(warm.recalls(vectors, CUTOFF)))
    cold_recall = warm_recall
    if cold:
        cold_recall = np.nanmean(profiles.cold_recalls(cold, vectors, CUTOFF), axis=1).mean()
    return round(float(np.sqrt(warm_recall * cold_recall)), 6)


def warn_of_omitted_parts(recipe: SetRecipe, feature_set: FeatureSet) -> list[str]:
    blocks = chain.read(feature_set.encoder).blocks
    joined = {block.part for block in blocks}
    omitted = [part for number, part in enumerate(recipe.parts) if number not in joined]

    warnings = []
    for part in omitted:
        why = "whose vectors are all the same"
        if distinguishes(part):
            why = "which cannot read the texts"
        warnings.append(f"{recipe.name}: made without {part.name}, {why}")
    return warnings


LINEAR = SetKind(
    "linear",
    make_linear,
    Linear,
    files=interactions_if_any,
    warnings=warn_of_omitted_parts,
    takes_all=True,
)
