"""Encoders that a release ships, and the sets that need each of their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.folder import ENCODER_FILE, SET, FeatureSet, parts_beside
from alignrec.pipeline.runtime.layout import Layout


def select_encoders(layout: Layout, names: Sequence[str]) -> dict[str, FeatureSet]:
    """Select the encoders to release: those of `names` with all dependencies.

    An encoder that depends on a third-party model is left out.
    """
    released: dict[str, FeatureSet] = {}
    for name in names:
        needed = _with_dependencies(layout, name)
        if all(map(_is_releasable, needed)):
            released |= {features.name: features for features in needed}
    return released


def _is_releasable(features: FeatureSet) -> bool:
    facts = features.facts
    # weights that a package ships have no origin and do not count as third-party weights
    spec = ENCODERS.get(facts.network)
    is_ours = spec is None or spec.origin is None
    return facts.portable and is_ours


def _with_dependencies(layout: Layout, name: str) -> list[FeatureSet]:
    features = FeatureSet.of(layout, name)
    needed = [*parts_beside(features.facts, features.encoder)]
    if features.facts.weights not in (None, name):
        needed.append(features.facts.weights)

    sets: list[FeatureSet] = []
    for dependency in needed:
        sets += _with_dependencies(layout, dependency)
    return [*sets, features]


def copy_encoders(folder: Path, encoders: Mapping[str, FeatureSet]) -> None:
    for name, features in encoders.items():
        target = folder / name
        io.copy_file(features.folder / SET, target / ENCODER_FILE)
        for path in io.files_below(features.encoder):
            io.copy_file(path, target / path.relative_to(features.encoder))


def find_users(folder: Path, encoders: Mapping[str, FeatureSet]) -> dict[Path, list[str]]:
    """Return the file of an encoder -> the sets that need it."""
    users: dict[Path, list[str]] = {}
    for name in encoders:
        for path in io.files_below(folder / name):
            users[path] = [name]

    # sets can share weights, stored in the folder of one of them, so fetching a set may need
    # files of another
    for name, features in encoders.items():
        for path in _list_shared(folder, features):
            if name not in users[path]:
                users[path].append(name)
    return users


def _list_shared(folder: Path, features: FeatureSet) -> list[Path]:
    """Return the files of other encoders that a set needs."""
    paths: list[Path] = []
    for part in parts_beside(features.facts, features.encoder):
        paths += io.files_below(folder / part)
    if features.facts.weights:
        weights = io.files_below(folder / features.facts.weights)
        paths += [path for path in weights if path.name != ENCODER_FILE]
    return paths
