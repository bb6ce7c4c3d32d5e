"""Kind `leaked`: what features could gain at most on any data. I items, F width."""

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.kinds.base import (
    Combination,
    KindSettings,
    SetKind,
    SetRecipe,
    complete_rows,
    describe,
    interactions_if_any,
)
from alignrec.pipeline.linalg.projections import JOINT_WIDTH
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import Width
from alignrec.pipeline.runtime.seeds import seed_for


class Leaked(KindSettings):
    """Settings of kind `leaked`: factors of all interactions, test included, an upper bound."""

    width: Width = JOINT_WIDTH
    """maximum number of factors"""


def make_leaked(recipe: SetRecipe) -> Combination:
    seed = seed_for("leaked", recipe.layout.dataset, recipe.seed)
    factors = leaked_factors(recipe.layout, recipe.settings.width, seed)
    return Combination(describe(recipe), complete_rows(recipe, factors))


def leaked_factors(layout: Layout, width: int, seed: int) -> np.ndarray:
    """Return factors of all interactions, those of test included, float32 [I, F]."""
    from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
    from alignrec.pipeline.features.kinds.factors import collaborative_factors

    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id"])
    matrix = user_item_matrix(rows["user_id"].to_numpy(), rows["item_id"].to_numpy(), n_items)
    return collaborative_factors(matrix, width, seed).astype(np.float32)


LEAKED = SetKind(
    "leaked",
    make_leaked,
    Leaked,
    files=interactions_if_any,
    is_ceiling=True,
    is_yardstick=True,
)
