"""Sets that are made by a stored map of their parts' vectors, with which a release encodes new
items.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.features.folder import FeatureSet, feature_rows
from alignrec.pipeline.features.kinds.base import Combination, SetRecipe, describe
from alignrec.pipeline.linalg.projections import Block, JoinedMap, Whitening


def make_fitted(
    recipe: SetRecipe, fit: JoinedMap, chosen: Mapping[str, Any] | None = None
) -> Combination:
    """Make a set by a map of its parts; `chosen`: settings besides those that are declared."""
    folder = recipe.folder / ENCODER
    if not (folder / chain.CHAIN_FILE).is_file():
        chain.write(folder, fit)
    stored = chain.read(folder, [part.width for part in recipe.parts])

    settings = recipe.settings.model_dump(exclude={"of"}) | dict(chosen or {})
    facts = describe(recipe, settings, recipe.parts)
    facts = facts.model_copy(
        update={
            "spans": [span for part in spanned_parts(recipe, stored) for span in part.spans],
            "fingerprint": facts.fingerprint | chain.digests(folder, facts.parts),
        }
    )
    return Combination(facts, map_shards(stored, recipe.parts))


def spanned_parts(recipe: SetRecipe, fit: JoinedMap) -> Sequence[FeatureSet]:
    """Return the parts if each column of the set has the modalities of a column of theirs, else
    none.
    """
    mixes_columns = fit.last is not None or any(fitted is not None for fitted in fit.maps)
    if mixes_columns or not all(part.facts.reads for part in recipe.parts):
        return ()

    return recipe.parts


def map_shards(fit: JoinedMap, parts: Sequence[FeatureSet]) -> Iterator[pa.Table]:
    for number in range(len(parts[0].shards)):
        tables = [part.read(number) for part in parts]
        vectors = fit([io.matrix(table["vector"]) for table in tables])

        # Kleene logic: a modality was used if any part used it, unknown if none is known to have
        # and one is unknown
        has_image = reduce(pc.or_kleene, [table["has_image"] for table in tables])
        has_text = reduce(pc.or_kleene, [table["has_text"] for table in tables])
        yield feature_rows(tables[0], vectors, has_image, has_text)


def map_of_one(fitted: Whitening) -> JoinedMap:
    """Return the map of a set that is derived from all columns of one part."""
    every_column = np.ones(len(fitted.mean), bool)
    return JoinedMap([Block(0, every_column, 1.0, unit=False)], [fitted])
