"""Differences of two releases, the sentence that sums them up, and the version they require."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.features.compared import MIN_COMPARED_ITEMS, ComparedSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import Column, Manifest
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.report.similarity import compare_sets
from alignrec.pipeline.report.verdict import format_overlap

BUMPS = ("none", "patch", "minor", "major")  # in increasing order
PATCH_OVERLAP = 0.9  # least share of kept neighbours for a patch: models still work
MINOR_OVERLAP = 0.5  # for a minor version: models need retraining, conclusions hold
MAX_NAMED_ITEMS = 10  # in a line
INPUT_COLUMNS = ["asin", "input_text_sha256", "input_image_sha256"]

Difference = Mapping[str, Any]  # as `diff_releases` returns it, or one of its `features`


def diff_releases(a: Path, b: Path) -> dict[str, Any]:
    """Compare two verified releases; raises UserError if they have no item in common."""
    old = Release(a)
    new = Release(b)
    inputs_a = _read_inputs(old)
    inputs_b = _read_inputs(new)
    common = [asin for asin in inputs_a if asin in inputs_b]
    if not common:
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")

    diff: dict[str, Any] = {
        "items": {
            "new": [asin for asin in inputs_b if asin not in inputs_a],
            "gone": [asin for asin in inputs_a if asin not in inputs_b],
            "changed": [asin for asin in common if inputs_a[asin] != inputs_b[asin]],
        },
        "renumbered": common != [asin for asin in inputs_b if asin in inputs_a],
        "schema": _find_schema_changes(old.manifest, new.manifest),
        "values": _find_changed_tables(old, new),
        "features": {},
    }
    if len(common) >= MIN_COMPARED_ITEMS:
        for name in sorted({*old.feature_sets} & {*new.feature_sets}):
            diff["features"][name] = _compare_versions(name, old, new, common)

    bump = _choose_bump(diff)
    older = old.manifest.version
    newer = new.manifest.version
    versions = {"older": older, "newer": newer, "due": _next_version(older, bump)}
    return diff | {"bump": bump, "versions": versions}


def _read_inputs(release: Release) -> dict[str, list[str]]:
    """Return the identifiers of items in order, with the hashes of text and image."""
    rows = release.items.select(INPUT_COLUMNS).to_pylist()
    return {asin: hashes for asin, *hashes in map(dict.values, rows)}


def _find_schema_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the changes that break readers of the old release."""
    after = _list_columns(new)
    changes = []
    for table, columns in _list_columns(old).items():
        if table not in after:
            changes.append(f"{table}: gone")
            continue
        lost = [column for column in columns if column not in after[table]]
        changes += [f"{table}: column {column.name} was {column.type}" for column in lost]
    return sorted(changes)


def _list_columns(release: Manifest) -> dict[str, list[Column]]:
    return {file.table_path: file.columns or [] for file in release.list_tables()}


def _find_changed_tables(old: Release, new: Release) -> list[str]:
    hashes = {file.path: file.sha256 for file in old.manifest.list_tables()}
    changes = []
    for file in new.manifest.list_tables():
        if file.path not in hashes:
            changes.append(f"{file.path}: new")
        elif hashes[file.path] != file.sha256:
            # a file contains its version, so hashes may differ while values are equal
            before = pq.read_table(old.folder / file.path, partitioning=None)
            after = pq.read_table(new.folder / file.path, partitioning=None)
            if not before.equals(after):
                changes.append(f"{file.path}: changed")
    return sorted(changes)


def _compare_versions(
    name: str, old: Release, new: Release, common: Sequence[str]
) -> dict[str, Any]:
    """Return how many neighbours a set's versions share, and the bump that it requires."""
    before = _read_vectors(old, name, common)
    after = _read_vectors(new, name, common)
    if np.array_equal(before, after):
        return {"equal": True, "same_space": True, "overlap": 1.0, "bump": "none"}

    sets = [ComparedSet("before", "", before), ComparedSet("after", "", after)]
    (similarity,) = compare_sets(sets, changed=0)["pairs"]
    is_of_one_space = _read_space(old, name) == _read_space(new, name)
    bump = "minor" if similarity["overlap"] >= MINOR_OVERLAP else "major"
    if is_of_one_space and similarity["overlap"] >= PATCH_OVERLAP:
        bump = "patch"
    return similarity | {"equal": False, "same_space": is_of_one_space, "bump": bump}


def _read_vectors(release: Release, name: str, asins: Sequence[str]) -> np.ndarray:
    table = release.features(name)
    row_of = {asin: row for row, asin in enumerate(table["asin"].to_pylist())}
    return io.matrix(table["vector"])[[row_of[asin] for asin in asins]]


def _read_space(release: Release, name: str) -> dict[str, Any]:
    first, *_ = release.manifest.paths_of(release.folder, "features", name)
    return io.fingerprint_of(io.record(first))


def _choose_bump(diff: Difference) -> str:
    """Return the part of the version that a difference raises: major, minor, patch or none."""
    bumps = ["none", *(similarity["bump"] for similarity in diff["features"].values())]
    if diff["schema"]:
        bumps.append("major")
    if diff["items"]["new"] or diff["items"]["gone"] or diff["renumbered"]:
        bumps.append("minor")
    if diff["values"]:
        recoded = any(line.startswith("semantic_ids/") for line in diff["values"])
        bumps.append("minor" if recoded else "patch")
    return max(bumps, key=BUMPS.index)


def _next_version(version: str, bump: str) -> str:
    major, minor, patch = map(int, version.split("."))

    if bump == "major":
        return f"{major + 1}.0.0"
    if bump == "minor":
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}" if bump == "patch" else version


def is_at_least(diff: Difference, bump: str) -> bool:
    return BUMPS.index(diff["bump"]) >= BUMPS.index(bump)


def summarise_diff(diff: Difference) -> str:
    """Return one sentence: what changed, and what to do about it."""
    counts = [f"{len(asins):,} {what}" for what, asins in diff["items"].items() if asins]
    items = ", ".join(counts) or "the same items"
    features = diff["features"].items()
    moved = [name for name, similarity in features if not similarity["same_space"]]
    if moved:
        return f"{items}; index all again: another space of {', '.join(moved)}"
    return f"{items}; vectors of the others can stay"


def describe_diff(diff: Difference) -> Iterator[str]:
    yield summarise_diff(diff)
    for what, asins in diff["items"].items():
        if asins:
            more = ", ..." if len(asins) > MAX_NAMED_ITEMS else ""
            yield f"{what}: {', '.join(asins[:MAX_NAMED_ITEMS])}{more}"
    if diff["renumbered"]:
        yield "items are numbered in another order"
    for part in ("schema", "values"):
        yield from (f"{part}: {line}" for line in diff[part])
    for name, similarity in diff["features"].items():
        yield f"{name}: {_describe_similarity(similarity)}"
    versions = diff["versions"]
    yield (
        f"version: {_describe_bump(diff['bump'])}: {versions['older']} -> {versions['due']}; "
        f"it calls itself {versions['newer']}"
    )


def _describe_bump(bump: str) -> str:
    return "nothing changed" if bump == "none" else f"a {bump} change"


def _describe_similarity(similarity: Difference) -> str:
    if similarity["equal"]:
        return "the same"
    space = "the same space" if similarity["same_space"] else "another space"
    shared = f"{format_overlap(similarity)} of {similarity['neighbours']} neighbours shared"
    return f"{_describe_bump(similarity['bump'])}: {space}, {shared}"
