"""Kind `planted`: the preferences that a generated catalogue was made with.

I items, n planted rows, F width.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.folder import Span
from alignrec.pipeline.features.kinds.base import (
    Combination,
    KindSettings,
    SetKind,
    SetRecipe,
    complete_rows,
    describe,
)
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources import base as sources
from alignrec.schemas import MODALITIES

MOTIVES = (0.45, 0.40, 0.15)  # probability that a shopper chooses by theme, by look, by neither
COARSE = 0.03  # weight of the category and of the colour alone, relative to theme and look


class Planted(KindSettings):
    """Settings of kind `planted`: the ground truth of a generated catalogue, an upper bound."""


def make_planted(recipe: SetRecipe) -> Combination:
    text, image = planted_halves(recipe.layout)
    spans = [Span(reads=["text"], width=text.shape[1]), Span(reads=["image"], width=image.shape[1])]
    facts = describe(recipe).model_copy(update={"reads": [*MODALITIES], "spans": spans})
    return Combination(facts, complete_rows(recipe, np.hstack([text, image])))


def planted_halves(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return indicators of text and image, float32 [I, F] each.

    Users of a generated catalogue choose by theme (subcategory) or look (colour and shape),
    sometimes by the coarser category or colour. With these weights, the dot product of two items
    is the probability that a user who chose one chooses the other, apart from popularity.

    Raises UserError if the dataset is not generated.
    """
    path = planted_table(layout)
    if not path.is_file():
        raise UserError(f"{layout.dataset} is not generated; leave planted out")

    planted = io.read_table(path, schemas.PLANTED)
    row_of = {asin: row for row, asin in enumerate(planted["asin"].to_pylist())}
    ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    rows = np.array([row_of[asin] for asin in ids["asin"].to_pylist()], np.int64)

    theme, look, _ = MOTIVES
    text = [
        scale_indicators(planted, "subcategory", theme),
        scale_indicators(planted, "category", COARSE * theme),
    ]
    image = [
        scale_indicators(planted, "look", look),
        scale_indicators(planted, "colour", COARSE * look),
    ]
    return np.hstack(text)[rows], np.hstack(image)[rows]


def scale_indicators(planted: pa.Table, column: str, weight: float) -> np.ndarray:
    """Return a column per value, float32 [n, values], whose squares sum to `weight`."""
    number = planted[column].to_numpy()
    size = np.bincount(number)
    indicators = np.eye(len(size), dtype=np.float32)[number]
    return indicators * np.sqrt(weight / size[number]).astype(np.float32)[:, None]


def planted_table(layout: Layout) -> Path:
    return layout.raw / sources.PLANTED_FILE


def planted_files(recipe: SetRecipe) -> list[Path]:
    return [planted_table(recipe.layout)]


PLANTED = SetKind(
    "planted",
    make_planted,
    Planted,
    files=planted_files,
    is_ceiling=True,
    is_yardstick=True,
    is_generated=True,
)
