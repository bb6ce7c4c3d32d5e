"""Differences of two releases, the semantic version they require, and a page of changed items."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.rotation import paired_cosines
from alignrec.pipeline.release.manifest import Column, Manifest
from alignrec.pipeline.release.read import ITEMS_FILE, Release
from alignrec.pipeline.report.feature_set import ComparedSet
from alignrec.pipeline.report.gallery import stored_pictures
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.similarity import NEIGHBOURS, changed_items, compare_sets
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.verdict import format_overlap

DIFFERENCE_PARTS = ("schema", "rows", "values")  # of a difference, besides the features
# lower bounds for a patch: models trained on the old features still work
PATCH_BOUNDS = {"overlap": 0.9, "cka": 0.99, "cosine": 0.99}
# lower bounds for a minor version: models need retraining, conclusions hold
MINOR_BOUNDS = {"overlap": 0.5, "cka": 0.9}
MIN_COMPARED_ITEMS = 3

Difference = Mapping[str, Any]  # as `diff_releases` returns it, or one of its `features`
RowPairs = list[tuple[int, int]]  # row of each common item in the older and in the newer release


def diff_releases(a: Path, b: Path, changed: int) -> dict[str, Any]:
    """Compare two verified releases; raises UserError if they have no item in common."""
    old = Release(a).refuse_without("items").manifest
    new = Release(b).refuse_without("items").manifest
    columns = ["asin", "title"]
    items_a = pq.read_table(a / ITEMS_FILE, columns=columns)
    items_b = pq.read_table(b / ITEMS_FILE, columns=columns)
    common = common_rows(items_a, items_b)
    if not common:
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")

    diff: dict[str, Any] = {
        "a": {"dataset": old.dataset, "version": old.version},
        "b": {"dataset": new.dataset, "version": new.version},
        "schema": _schema_changes(old, new),
        "rows": _row_changes(items_a["asin"].to_pylist(), items_b["asin"].to_pylist()),
        "values": _value_changes(a, b, old, new),
        "features": {},
    }
    if len(common) >= MIN_COMPARED_ITEMS:
        for name in sorted({*old.sets_with("features")} & {*new.sets_with("features")}):
            similarity = _measure_similarity(a, b, name, common, changed)
            _name_items(similarity["most_changed"], items_a, common)
            diff["features"][name] = similarity

    bump = required_bump(diff)
    return diff | {"bump": bump, "version": next_version(old.version, bump)}


def required_bump(diff: Difference) -> str:
    """Return the part of the version that a difference raises: major, minor, patch or none."""
    bumps = {similarity["bump"] for similarity in diff["features"].values()}
    recoded = any(line.startswith("semantic_ids/") for line in diff["values"])

    if diff["schema"] or "major" in bumps:
        return "major"
    if diff["rows"] or recoded or "minor" in bumps:
        return "minor"
    return "patch" if diff["values"] or "patch" in bumps else "none"


def next_version(version: str, bump: str) -> str:
    major, minor, patch = map(int, version.split("."))

    if bump == "major":
        return f"{major + 1}.0.0"
    if bump == "minor":
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}" if bump == "patch" else version


def describe_diff(diff: Difference) -> Iterator[str]:
    for part in DIFFERENCE_PARTS:
        for line in diff[part]:
            yield f"{part}: {line}"

    unchanged = [part for part in DIFFERENCE_PARTS if not diff[part]]
    for name, similarity in diff["features"].items():
        if similarity["equal"]:
            unchanged.append(name)
            continue
        yield f"{name}: {_describe_bump(similarity['bump'])}: {_describe_similarity(similarity)}"
        for item in _changed_only(similarity):
            share = f"{item['overlap']:.0%} shared"
            yield f"{name}: most changed {item['asin']} ({share}) {item['title']}"

    if unchanged:
        yield f"the same: {', '.join(unchanged)}"
    yield f"version: {describe_verdict(diff)}"


def describe_verdict(diff: Difference) -> str:
    versions = f"{diff['a']['version']} -> {diff['version']}"
    return f"{_describe_bump(diff['bump'])}: {versions}; it calls itself {diff['b']['version']}"


def _describe_bump(bump: str) -> str:
    return "nothing changed" if bump == "none" else f"a {bump} change"


def _describe_similarity(similarity: Difference) -> str:
    old, new = similarity["a"], similarity["b"]
    shared = f"{format_overlap(similarity)} of {similarity['neighbours']} neighbours shared"
    if "sampled" in similarity:
        shared += f" by {similarity['sampled']:,} items drawn by seed"

    figures = [shared, f"CKA {similarity['cka']:.4f}"]
    if similarity["cosine"] is not None:
        figures.append(f"cosine of old and new {similarity['cosine']:.3f}")
    figures.append(f"effective rank {old['effective_rank']:.1f} -> {new['effective_rank']:.1f}")
    figures.append(f"mean cosine {old['mean_cosine']:.3f} -> {new['mean_cosine']:.3f}")
    return ", ".join(figures)


def _changed_only(similarity: Difference) -> list[dict[str, Any]]:
    return [item for item in similarity["most_changed"] if item["overlap"] < 1]


def common_rows(before: pa.Table, after: pa.Table) -> RowPairs:
    rows_after = _number_items(after)
    pairs = []
    for asin, row in _number_items(before).items():
        if asin in rows_after:
            pairs.append((row, rows_after[asin]))
    return pairs


def _number_items(items: pa.Table) -> dict[str, int]:
    return {asin: row for row, asin in enumerate(items["asin"].to_pylist())}


def _name_items(most_changed: list[dict[str, Any]], items: pa.Table, common: RowPairs) -> None:
    """Replace the number of each item among the common ones by its identifier and title."""
    for entry in most_changed:
        row, _ = common[entry.pop("item_id")]
        entry |= items.slice(row, 1).to_pylist()[0]


def _schema_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the changes that break readers of the old release."""
    before, after = _columns_by_table(old), _columns_by_table(new)
    changes = []
    for table, columns in before.items():
        if table not in after:
            changes.append(f"{table}: gone")
            continue
        lost = [column for column in columns if column not in after[table]]
        changes += [f"{table}: column {column.name} was {column.type}" for column in lost]
    return sorted(changes)


def _columns_by_table(release: Manifest) -> dict[str, list[Column]]:
    return {file.table_path: file.columns or [] for file in release.list_tables()}


def _row_changes(before: list[str], after: list[str]) -> list[str]:
    old, new = set(before), set(after)
    changes = []
    if new - old:
        changes.append(f"{len(new - old):,} items new")
    if old - new:
        changes.append(f"{len(old - new):,} items gone")
    if [asin for asin in after if asin in old] != [asin for asin in before if asin in new]:
        changes.append("items are numbered in another order")
    return changes


def _value_changes(a: Path, b: Path, old: Manifest, new: Manifest) -> list[str]:
    hashes = {file.path: file.sha256 for file in old.list_tables()}
    changes = []
    for file in new.list_tables():
        if file.path not in hashes:
            changes.append(f"{file.path}: new")
        elif hashes[file.path] != file.sha256:
            # a file contains its version, so hashes may differ while values are equal
            before = pq.read_table(a / file.path, partitioning=None)
            after = pq.read_table(b / file.path, partitioning=None)
            if not before.equals(after):
                changes.append(f"{file.path}: changed")
    return sorted(changes)


def _measure_similarity(
    a: Path, b: Path, name: str, common: RowPairs, changed: int
) -> dict[str, Any]:
    """Return the similarity of a feature set's versions, and the bump that it requires."""
    old, new = read_versions(a, b, name, common)
    similarity: dict[str, Any] = {
        "items": len(common),
        "neighbours": min(NEIGHBOURS, len(common) - 1),
        "most_changed": [],
    }
    if np.array_equal(old.vectors, new.vectors):
        figures = {"overlap": 1.0, "cka": 1.0, "cosine": 1.0}
        return similarity | figures | {"equal": True, "bump": "none"}

    comparison = compare_sets([old, new], changed)
    shapes = comparison["sets"]  # of a and b
    (pair,) = comparison["pairs"]
    similarity |= {key: value for key, value in pair.items() if key not in shapes} | shapes
    similarity["cosine"] = _mean_cosine(old.vectors, new.vectors)
    similarity["equal"] = False
    return similarity | {"bump": _required_by(similarity)}


def _mean_cosine(old: np.ndarray, new: np.ndarray) -> float | None:
    """Return the mean cosine of old and new vectors; None if their widths differ."""
    if old.shape != new.shape:
        return None
    return round(float(paired_cosines(new, old).mean()), 6)


def _required_by(similarity: Difference) -> str:
    # neighbours and CKA are invariant to rotations, which break models trained on the old features;
    # cosines are not
    has_cosine = similarity["cosine"] is not None
    if has_cosine and all(similarity[key] >= low for key, low in PATCH_BOUNDS.items()):
        return "patch"
    is_minor = all(similarity[key] >= low for key, low in MINOR_BOUNDS.items())
    return "minor" if is_minor else "major"


def read_versions(a: Path, b: Path, name: str, common: RowPairs) -> list[ComparedSet]:
    """Return a feature set of both releases, named a and b, on their common items."""
    rows_a, rows_b = zip(*common, strict=True)
    return [_read_rows("a", a, name, rows_a), _read_rows("b", b, name, rows_b)]


def _read_rows(label: str, release: Path, name: str, rows: Sequence[int]) -> ComparedSet:
    paths = io.shards(release / "features" / name, "features")
    table = pa.concat_tables([pq.read_table(path, columns=["vector"]) for path in paths])
    return ComparedSet(label, str(release), io.matrix(table["vector"])[[*rows]])


def render_changes(a: Path, b: Path, diff: Difference, images: Path, kind: str) -> str:
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a = pq.read_table(a / ITEMS_FILE, columns=columns)
    items_b = pq.read_table(b / ITEMS_FILE, columns=columns)
    common = common_rows(items_a, items_b)
    items = items_b.take([row for _, row in common])
    row_of = _number_items(items)

    pairs = []
    for name, similarity in diff["features"].items():
        most = [(row_of[item["asin"]], item["overlap"]) for item in _changed_only(similarity)]
        if most:
            old, new = read_versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({diff['a']['version']})")
            new = replace(new, name=f"{name} after ({diff['b']['version']})")
            pairs.append(changed_items(old, new, most))

    dataset = diff["b"]["dataset"]
    tables = [_contents_table(diff), _features_table(diff)]
    return compared_page(
        "diff",
        dataset,
        describe_verdict(diff),
        [PageSection("what", "What changed", "What changed", tables=tables)],
        kind=kind,
        title=f"{dataset} {diff['a']['version']} and {diff['b']['version']}",
        pairs=pairs,
        items=items,
        images=stored_pictures(images, items, row_of),
        imageless=f"No images: {images.name} has none here, and releases hold addresses only.",
    )


def _contents_table(diff: Difference) -> Table:
    rows = []
    for part in DIFFERENCE_PARTS:
        rows += [[part, line] for line in diff[part] or ["the same"]]
    return Table("Contents", "", ["part", "difference"], rows, texts=2)


def _features_table(diff: Difference) -> Table:
    rows = []
    for name, similarity in diff["features"].items():
        cosine = similarity["cosine"]
        row = [name, similarity["bump"], format_overlap(similarity), f"{similarity['cka']:.4f}"]
        row.append("" if cosine is None else f"{cosine:.3f}")
        for figure in ("effective_rank", "mean_cosine"):
            shapes = [similarity.get(side) for side in ("a", "b")]
            row += ["" if shape is None else f"{shape[figure]:.3f}" for shape in shapes]
        rows.append(row)

    head = ["feature set", "change", "neighbours shared", "linear CKA", "own cosine"]
    head += ["rank before", "after", "cosine before", "after"]
    note = (
        "Of the common items. Change: what the similarity calls for, by semantic versioning. "
        "Own cosine: of an item's old and new vector. Rank: number of directions in use. "
        "Cosine: the mean over pairs of items. Neither is computed where the vectors are the same."
    )
    return Table("Features", note, head, rows, texts=2)
