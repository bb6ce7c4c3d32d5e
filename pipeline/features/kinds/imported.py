"""Sets of third-party feature files, which a source names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec.pipeline.features.folder import feature_rows
from alignrec.pipeline.features.kinds.base import Combination, SetKind, SetRecipe, describe


def make_imported(recipe: SetRecipe) -> Combination:
    return Combination(describe(recipe), imported_rows(recipe))


def imported_rows(recipe: SetRecipe) -> Iterator[pa.Table]:
    assert recipe.file is not None, "an imported set has a file"
    matched = recipe.file.matched(recipe.ids["asin"].to_pylist())
    for start, ids in recipe.shards():
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
