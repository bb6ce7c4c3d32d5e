"""What a kind of combined feature set is, what it is made from, and what it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline.features.folder import Facts, FeatureSet, feature_rows
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import Name, Section
from alignrec.schemas import MODALITIES

if TYPE_CHECKING:
    from alignrec.pipeline.vectors.base import ImportedFile


class KindSettings(Section):
    """Settings of a kind."""

    def parts(self) -> list[str]:
        """Return the feature sets that the set is derived from, in order."""
        return []


class Derived(KindSettings):
    """Settings of kinds that are derived from one feature set."""

    of: Name
    """feature set to transform"""

    def parts(self) -> list[str]:
        return [self.of]


class Combination(NamedTuple):
    """A combined set before it is written."""

    facts: Facts
    shards: Iterator[pa.Table]  # rows, schema features(F)


@dataclass(frozen=True)
class SetRecipe:
    """What a combined set is made from."""

    name: str
    kind: SetKind
    definition: Mapping[str, Any]  # kind and settings as its files record them
    settings: Any  # of class `kind.params`
    parts: Sequence[FeatureSet]
    layout: Layout
    folder: Path
    ids: pa.Table  # schema ITEM_IDS, all items of the dataset
    shard_rows: int
    batch_size: int  # of sets without parts
    seed: int
    file: ImportedFile | None = None  # third-party feature file
    # schema ITEM_IDS, items outside the k-core; None: none are kept
    further: pa.Table | None = None

    def shards(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the position of the first item of each shard, and the ids of its items."""
        for start in range(0, len(self.ids), self.shard_rows):
            yield start, self.ids.slice(start, self.shard_rows)


def no_files(recipe: SetRecipe) -> list[Path]:
    return []


def interactions_if_any(recipe: SetRecipe) -> list[Path]:
    path = recipe.layout.interactions
    return [path] if path.is_file() else []


def no_warnings(recipe: SetRecipe, feature_set: FeatureSet) -> list[str]:
    return []


@dataclass(frozen=True)
class SetKind:
    """A kind of combined feature set."""

    name: str
    make: Callable[[SetRecipe], Combination]
    params: type[KindSettings] = KindSettings  # class of its settings in `combine.sets`
    files: Callable[[SetRecipe], list[Path]] = no_files  # what it reads besides its parts
    # about a set that is written
    warnings: Callable[[SetRecipe, FeatureSet], list[str]] = no_warnings
    takes_all: bool = False  # derived from all available encoders unless its settings name parts
    is_yardstick: bool = False  # only calibrates the figures of probes, which judge it raw


def describe(
    recipe: SetRecipe, settings: Mapping[str, Any] | None = None, parts: Sequence[FeatureSet] = ()
) -> Facts:
    """Return the facts of a set that has its modalities, sizes and models from `parts`."""
    fields: dict[str, Any] = {
        "encoder": recipe.name,
        "kind": recipe.kind.name,
        "reads": [],
        "settings": {"kind": recipe.kind.name, **(settings or {})},
        "batch_size": recipe.batch_size,
        "image_size": Images().size,
        "image_quality": Images().quality,
        "portable": False,
    }
    if not parts:
        return Facts(**fields).with_space({})

    inherited = [part.facts for part in parts]
    models = [{"name": facts.encoder, "kind": facts.network} | facts.model for facts in inherited]
    fields |= {
        "reads": [m for m in MODALITIES if any(m in facts.reads for facts in inherited)],
        "parts": [facts.encoder for facts in inherited],
        "batch_size": inherited[0].batch_size,
        "image_size": inherited[0].image_size,
        "image_quality": inherited[0].image_quality,
        "portable": all(facts.portable for facts in inherited),
        "model": {"kind": recipe.kind.name, "parts": models},
    }
    spaces = {facts.encoder: facts.fingerprint for facts in inherited}
    return Facts(**fields).with_space({"parts": spaces})


def complete_rows(recipe: SetRecipe, vectors: np.ndarray) -> Iterator[pa.Table]:
    """Yield shards of vectors of all items, float32 [I, F], as if computed from both modalities."""
    for start, ids in recipe.shards():
        both = np.ones(len(ids), bool)
        yield feature_rows(ids, vectors[start : start + len(ids)], both, both)
