"""Semantic IDs of a release, with the codebooks that made them, for use in place of a new fit.

A release is untrusted: it is verified before anything of it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.features.codebooks import ReleasedCodes, read_codebooks
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release, codebooks_path

MAX_SUFFIX = 1 << 30  # of a release: further items are numbered after it


def read_codes(folder: Path, feature_sets: Sequence[FeatureSet]) -> dict[str, ReleasedCodes]:
    """Read the semantic IDs of feature sets in a release, with the codebooks that made them.

    UserError if the release is damaged or lacks them, or if a set is of another space there.
    """
    release = Release(folder).verify()
    return {of.name: _read_codes_of(release, of) for of in feature_sets}


def _read_codes_of(release: Release, features: FeatureSet) -> ReleasedCodes:
    folder = release.folder
    name = features.name
    table = release.semantic_ids(name)
    path = folder / codebooks_path(name)
    if codebooks_path(name) not in {file.path for file in release.manifest.files}:
        raise UserError(
            f"{folder}: no codebooks of {name}; publish it again, or leave `codebooks` out"
        )

    shards = release.manifest.paths_of(folder, "features", name)
    older = io.common_fingerprint((shard, io.record(shard)) for shard in shards)
    if difference := io.first_difference(older, features.facts.fingerprint):
        raise UserError(
            f"{folder}: {name} is in another space there ({difference}); keep it by an encoder of "
            "kind released, or leave `codebooks` out"
        )

    levels = table.schema.field("codes").type.list_size
    largest = pc.max(table["suffix"]).as_py() or 0
    if largest > MAX_SUFFIX:
        raise UserError(f"{folder}: a suffix of {largest:,} in {name}; do not trust it")
    return ReleasedCodes(read_codebooks(path, levels, features.width), table)
