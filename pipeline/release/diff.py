"""Differences of two releases, the sentence that sums them up, and the version they require."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.compared import MIN_COMPARED_ITEMS, ComparedSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.rotation import fit_rotation, paired_cosines, rotate
from alignrec.pipeline.release.form import KEEP_FORM, describe_form_change, read_fingerprint
from alignrec.pipeline.release.manifest import Column, Manifest
from alignrec.pipeline.release.read import ITEMS_FILE, Release
from alignrec.pipeline.report.similarity import NEIGHBOURS, compare_sets
from alignrec.pipeline.report.verdict import format_overlap

DIFFERENCE_PARTS = ("schema", "rows", "values")  # of a difference, besides the features
# lower bounds for a patch: models trained on the old features still work
PATCH_BOUNDS = {"overlap": 0.9, "cka": 0.99, "cosine": 0.99}
# lower bounds for a minor version: models need retraining, conclusions hold
MINOR_BOUNDS = {"overlap": 0.5, "cka": 0.9}
BUMPS = ("none", "patch", "minor", "major")  # in increasing order
TURNED = "turned"
MIN_MENDED_SHARE = 0.5  # of what a set's cosine lacks to 1, for it to count as turned
MAX_NAMED_ITEMS = 10  # in a line
ITEM_COLUMNS = ["asin", "title", "input_text_sha256", "input_image_sha256", "image_status"]
INPUT_COLUMNS = ("input_text_sha256", "input_image_sha256")

Difference = Mapping[str, Any]  # as `diff_releases` returns it, or one of its `features`
RowPairs = list[tuple[int, int]]  # row of each common item in the older and in the newer release


def diff_releases(a: Path, b: Path, changed: int) -> dict[str, Any]:
    """Compare two verified releases; raises UserError if they have no item in common."""
    old = Release(a).refuse_without("items").manifest
    new = Release(b).refuse_without("items").manifest
    items_a = pq.read_table(a / ITEMS_FILE, columns=ITEM_COLUMNS)
    items_b = pq.read_table(b / ITEMS_FILE, columns=ITEM_COLUMNS)
    common = common_rows(items_a, items_b)
    if not common:
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")

    items = _item_changes(items_a, items_b, common)
    diff: dict[str, Any] = {
        "a": _describe_release(old, items_a),
        "b": _describe_release(new, items_b),
        "items": items,
        "schema": _schema_changes(old, new),
        "rows": _row_changes(items, items_a["asin"].to_pylist(), items_b["asin"].to_pylist()),
        "values": _value_changes(a, b, old, new),
        "features": {},
    }
    if len(common) >= MIN_COMPARED_ITEMS:
        for name in sorted({*old.sets_with("features")} & {*new.sets_with("features")}):
            similarity = _measure_similarity(a, b, name, common, changed)
            _name_items(similarity["most_changed"], items_a, common)
            shards = [of.paths_of(at, "features", name) for of, at in ((old, a), (new, b))]
            similarity["form"] = describe_form_change(*map(read_fingerprint, shards))
            diff["features"][name] = similarity

    bump = required_bump(diff)
    return diff | {"bump": bump, "version": next_version(old.version, bump)}


def _describe_release(manifest: Manifest, items: pa.Table) -> dict[str, Any]:
    has_image = pc.equal(items["image_status"], "ok").fill_null(False)
    return {
        "dataset": manifest.dataset,
        "version": manifest.version,
        "items": len(items),
        "without_image": len(items) - (pc.sum(has_image).as_py() or 0),
    }


def _item_changes(items_a: pa.Table, items_b: pa.Table, common: RowPairs) -> dict[str, list[str]]:
    """Return the identifiers of items that are new, gone, or have another text or image."""
    asins_a = items_a["asin"].to_pylist()
    asins_b = items_b["asin"].to_pylist()
    inputs_a = list(zip(*(items_a[column].to_pylist() for column in INPUT_COLUMNS), strict=True))
    inputs_b = list(zip(*(items_b[column].to_pylist() for column in INPUT_COLUMNS), strict=True))
    old = set(asins_a)
    new = set(asins_b)
    return {
        "new": [asin for asin in asins_b if asin not in old],
        "gone": [asin for asin in asins_a if asin not in new],
        "changed": [asins_a[row] for row, row_b in common if inputs_a[row] != inputs_b[row_b]],
    }


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


def summarise_diff(diff: Difference) -> str:
    """Return one sentence: what changed, and what to do about it."""
    counts = [f"{len(asins):,} {what}" for what, asins in diff["items"].items() if asins]
    items = ", ".join(counts) or "the same items"

    reformed = [name for name, similarity in diff["features"].items() if similarity["form"]]
    kept = f"; `fitted` would keep the form of {', '.join(reformed)}" if reformed else ""
    turned = list_turned(diff)
    if turned:
        names = ", ".join(turned)
        are = "are" if len(turned) > 1 else "is"
        return (
            f"{items}; {names} {are} turned: index all items again, or publish with --align{kept}"
        )
    if reformed:
        return f"{items}; index all items again{kept}"

    changed = [name for name, similarity in diff["features"].items() if not similarity["equal"]]
    if not changed:
        return f"{items}; vectors of the others stay as they were"
    bumps = {name: diff["features"][name]["bump"] for name in changed}
    trained_anew = [name for name, bump in bumps.items() if bump != "patch"]
    if trained_anew:
        return f"{items}; train again what was trained on {', '.join(trained_anew)}"
    return f"{items}; {', '.join(changed)} can be mixed with older vectors"


def list_turned(diff: Difference) -> list[str]:
    """Return the sets that a rotation brings much nearer to their older vectors."""
    return [name for name, similarity in diff["features"].items() if similarity[TURNED]]


def exceeds(diff: Difference, threshold: str) -> bool:
    """Return whether a difference is worth failing for.

    `threshold` is a bump, which larger ones exceed too; `turned`; or a share of items with other
    neighbours, 0 to 1. UserError if it is none of them.
    """
    if threshold == TURNED:
        return bool(list_turned(diff))
    if threshold in BUMPS[1:]:
        return BUMPS.index(diff["bump"]) >= BUMPS.index(threshold)
    try:
        share = float(threshold)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise UserError(
            f"--fail-on {threshold}: "
            f"expected {', '.join(BUMPS[1:])}, {TURNED}, or a share of items, 0 to 1"
        )
    features = diff["features"].values()
    return any(similarity["neighbours_changed"] > share for similarity in features)


def describe_diff(diff: Difference) -> Iterator[str]:
    yield summarise_diff(diff)
    for what, asins in diff["items"].items():
        if asins:
            yield f"{what}: {_list_items(asins)}"
    missing = [diff[side]["without_image"] for side in ("a", "b")]
    if any(missing):
        yield f"without image: {missing[0]:,} -> {missing[1]:,} items"
    for part in DIFFERENCE_PARTS:
        for line in diff[part]:
            yield f"{part}: {line}"

    unchanged = [part for part in DIFFERENCE_PARTS if not diff[part]]
    for name, similarity in diff["features"].items():
        if similarity["equal"]:
            unchanged.append(name)
            continue
        yield f"{name}: {_describe_bump(similarity['bump'])}: {_describe_similarity(similarity)}"
        if similarity["form"]:
            yield f"{name}: another form, {similarity['form']}; {KEEP_FORM}"
        for item in changed_only(similarity):
            yield (
                f"{name}: "
                f"most changed {item['asin']} ({item['overlap']:.0%} shared) {item['title']}"
            )

    if unchanged:
        yield f"the same: {', '.join(unchanged)}"
    yield f"version: {describe_verdict(diff)}"


def _list_items(asins: Sequence[str]) -> str:
    listed = ", ".join(asins[:MAX_NAMED_ITEMS])
    more = len(asins) - MAX_NAMED_ITEMS
    return f"{listed} and {more:,} more" if more > 0 else listed


def describe_verdict(diff: Difference) -> str:
    return (
        f"{_describe_bump(diff['bump'])}: {diff['a']['version']} -> {diff['version']}; "
        f"it calls itself {diff['b']['version']}"
    )


def _describe_bump(bump: str) -> str:
    return "nothing changed" if bump == "none" else f"a {bump} change"


def _describe_similarity(similarity: Difference) -> str:
    old, new = similarity["a"], similarity["b"]
    shared = f"{format_overlap(similarity)} of {similarity['neighbours']} neighbours shared"
    if "sampled" in similarity:
        shared += f" by {similarity['sampled']:,} items drawn by seed"

    others = f"{similarity['neighbours_changed']:.1%} of items have others"
    figures = [shared, others, f"CKA {similarity['cka']:.4f}"]
    if similarity["cosine"] is not None:
        figures.append(
            f"cosine of old and new {similarity['cosine']:.3f}, "
            f"{similarity['rotated_cosine']:.3f} after the best rotation"
        )
    figures.append(f"median norm {old['norm']:.3g} -> {new['norm']:.3g}")
    figures.append(f"effective rank {old['effective_rank']:.1f} -> {new['effective_rank']:.1f}")
    figures.append(f"mean cosine {old['mean_cosine']:.3f} -> {new['mean_cosine']:.3f}")
    return ", ".join(figures)


def changed_only(similarity: Difference) -> list[dict[str, Any]]:
    return [item for item in similarity["most_changed"] if item["overlap"] < 1]


def common_rows(before: pa.Table, after: pa.Table) -> RowPairs:
    rows_after = number_items(after)
    pairs = []
    for asin, row in number_items(before).items():
        if asin in rows_after:
            pairs.append((row, rows_after[asin]))
    return pairs


def number_items(items: pa.Table) -> dict[str, int]:
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


def _row_changes(items: Mapping[str, list[str]], before: list[str], after: list[str]) -> list[str]:
    changes = []
    for what in ("new", "gone"):
        n = len(items[what])
        if n:
            changes.append(f"{n:,} item{'s' if n > 1 else ''} {what}")

    old, new = set(before), set(after)
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
        figures = {"overlap": 1.0, "neighbours_changed": 0.0, "cka": 1.0, "cosine": 1.0}
        return similarity | figures | {"equal": True, TURNED: False, "bump": "none"}

    comparison = compare_sets([old, new], changed)
    shapes = comparison["sets"]  # of a and b
    (pair,) = comparison["pairs"]
    similarity |= {key: value for key, value in pair.items() if key not in shapes} | shapes
    for side, features in zip("ab", (old, new), strict=True):
        norms = np.linalg.norm(features.vectors, axis=1)
        similarity[side] |= {"norm": round(float(np.median(norms)), 6)}
    similarity |= _measure_cosines(old.vectors, new.vectors)
    bump = _required_by(similarity)
    return similarity | {"equal": False, TURNED: _is_turned(similarity, bump), "bump": bump}


def _measure_cosines(old: np.ndarray, new: np.ndarray) -> dict[str, float | None]:
    """Return the mean cosine of old and new vectors, as they are and after the best rotation.

    None if the widths differ.
    """
    if old.shape != new.shape:
        return {"cosine": None, "rotated_cosine": None}
    width = old.shape[1]
    rotation = fit_rotation([(new, old)], width, width)
    return {
        "cosine": round(float(paired_cosines(new, old).mean()), 6),
        "rotated_cosine": round(float(paired_cosines(rotate(new, rotation), old).mean()), 6),
    }


def _is_turned(similarity: Difference, bump: str) -> bool:
    cosine = similarity["cosine"]
    if cosine is None or bump != "minor":
        return False
    mended = similarity["rotated_cosine"] - cosine
    return bool(mended > MIN_MENDED_SHARE * (1 - cosine))


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
    folder = release / "features" / name
    schema = schemas.features(io.width(folder))
    paths = io.shards(folder, "features")
    table = pa.concat_tables([io.read_table(path, schema, ["vector"]) for path in paths])
    return ComparedSet(label, str(release), io.matrix(table["vector"])[[*rows]])
