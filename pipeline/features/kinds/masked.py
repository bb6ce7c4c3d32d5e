"""Kind `masked`: a feature set without its images, or without its texts. n items of a shard, F
width.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.features.folder import FeatureSet, Modality, feature_rows, parts_beside
from alignrec.pipeline.features.kinds.base import Combination, Derived, SetKind, SetRecipe, describe
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import Name
from alignrec.schemas import MODALITIES


class Masked(Derived):
    """Settings of kind `masked`: a feature set as if no item had a modality."""

    of: Name
    """feature set to mask"""
    modality: Modality
    """masked modality of every item"""


def make_masked(recipe: SetRecipe) -> Combination:
    part, modality = recipe.parts[0], recipe.settings.modality
    facts = describe(recipe, {"of": recipe.settings.of, "modality": modality}, recipe.parts)
    reads = [read for read in part.facts.reads if read != modality]
    facts = facts.model_copy(update={"reads": reads, "parts": [], "portable": False})
    return Combination(facts, masked_rows(recipe.layout, part, modality))


def masked_rows(layout: Layout, part: FeatureSet, modality: Modality) -> Iterator[pa.Table]:
    if {*part.facts.reads} != {*MODALITIES}:
        why = f"reads only {part.facts.reads[0]}s" if part.facts.reads else "is imported"
        raise UserError(f"{part.name} {why}, so nothing can be masked; leave it out")

    vectors_of = mask_vectors(layout, part, modality)
    for number in range(len(part.shards)):
        rows = part.read(number)
        flags = {"has_image": rows["has_image"], "has_text": rows["has_text"]}
        flags[f"has_{modality}"] = np.zeros(len(rows), bool)
        yield feature_rows(rows, vectors_of(number), **flags)


def mask_vectors(
    layout: Layout, part: FeatureSet, modality: Modality
) -> Callable[[int], np.ndarray]:
    """Return a function from a shard's number to its vectors without a modality, float32 [n, F]."""
    # mask the parts before they are mapped: a mapped column mixes modalities
    if names := parts_beside(part.facts, part.encoder):
        parts = [FeatureSet.of(layout, name) for name in names]
        fit = chain.read(part.encoder, [inner.width for inner in parts])
        masked = [mask_vectors(layout, inner, modality) for inner in parts]
        return lambda number: fit([vectors_of(number) for vectors_of in masked])

    if any(len(span.reads) != 1 for span in part.spans if modality in span.reads):
        raise UserError(
            f"no {modality} can be removed from {part.name}; "
            "encode it with fewer `modalities` instead"
        )

    # zero the encoder's columns that use the modality
    spans = [np.repeat(modality not in span.reads, span.width) for span in part.spans]
    is_kept = np.concatenate(spans)
    return lambda number: np.where(is_kept, io.matrix(part.read(number)["vector"]), np.float32(0))


MASKED = SetKind("masked", make_masked, Masked, is_yardstick=True)
