"""Sets of third-party feature files, which a source names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from alignrec.pipeline.features.folder import feature_rows
from alignrec.pipeline.features.kinds.base import Combination, SetKind, SetRecipe, describe
from alignrec.pipeline.io.errors import UserError

if TYPE_CHECKING:
    from alignrec.pipeline.vectors.base import MatchedFile


def make_imported(recipe: SetRecipe) -> Combination:
    return Combination(describe(recipe), imported_rows(recipe))


def imported_rows(recipe: SetRecipe) -> Iterator[pa.Table]:
    assert recipe.file is not None, "an imported set has a file"
    matched = recipe.file.matched(recipe.ids["asin"].to_pylist())
    yield from rows_of_items(matched, recipe.ids, recipe.shard_rows)


def further_rows(recipe: SetRecipe) -> Iterator[pa.Table]:
    """Yield the rows of items outside the k-core; UserError if the file's rows name no items."""
    assert recipe.file is not None, "an imported set has a file"
    assert recipe.further is not None, "only with items.all"
    asins = recipe.ids["asin"].to_pylist()
    core = recipe.file.matched(asins)
    if not core.identified and recipe.file.order is None:
        raise UserError(
            f"{recipe.file.path}: its rows name no items, so those of `items.all` have none; "
            "map them by feature_rows, or leave items.all out"
        )
    # together with the core, as the file may have no further item
    matched = recipe.file.matched([*asins, *recipe.further["asin"].to_pylist()])
    yield from rows_of_items(matched, recipe.further, recipe.shard_rows, len(asins))


def rows_of_items(
    matched: MatchedFile, items: pa.Table, shard_rows: int, before: int = 0
) -> Iterator[pa.Table]:
    """Yield shards of the rows of items, schema ITEM_IDS, `before` which a file is matched to
    others.
    """
    for first in range(0, len(items), shard_rows):
        ids = items.slice(first, shard_rows)
        start = before + first
        stop = start + len(ids)
        has_row = matched.place[start:stop] >= 0
        false = np.zeros(len(ids), bool)
        unknown = pa.array(false, mask=has_row)  # items without a row have no input
        has_image = has_text = unknown
        if matched.vectors.of_images:
            has_image = pa.array(has_row)
            has_text = pa.array(false)
        yield feature_rows(ids, matched.rows(start, stop), has_image, has_text)


def imported_files(recipe: SetRecipe) -> list[Path]:
    assert recipe.file is not None, "an imported set has a file"
    return [recipe.file.path, *filter(None, [recipe.file.order])]


IMPORTED = SetKind("imported", make_imported, files=imported_files)
