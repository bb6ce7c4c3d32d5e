"""Differences of two releases, the semantic version that they require, and a page of the most changed items."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.report.feature_set import FeatureSet
from alignrec.pipeline.report.gallery import stored_pictures
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import Section
from alignrec.pipeline.report.similarity import NEIGHBOURS, changed_items, compare_sets
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.verdict import format_overlap

ITEMS = "items.parquet"
PARTS = ("major", "minor", "patch")
# lower bounds for a patch: models trained on the old features still work
SAME = {"overlap": 0.9, "cka": 0.99, "cosine": 0.99}
KIN = {
    "overlap": 0.5,
    "cka": 0.9,
}  # lower bounds for a minor version: models need retraining, conclusions hold
Pairs = list[tuple[int, int]]  # row of each common item in the older and in the newer release


def diff_releases(a: Path, b: Path, changed: int) -> dict[str, Any]:
    """Compare two verified releases; raises UserError if they have no item in common."""
    old, new = (
        Release(a).refuse_without("items").manifest,
        Release(b).refuse_without("items").manifest,
    )
    items_a, items_b = (
        pq.read_table(folder / ITEMS, columns=["asin", "title"]) for folder in (a, b)
    )
    if not (common := common_rows(items_a, items_b)):
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")
    found: dict[str, Any] = {
        "a": {"dataset": old.dataset, "version": old.version},
        "b": {"dataset": new.dataset, "version": new.version},
        "schema": _schema_changes(old, new),
        "rows": _row_changes(items_a["asin"].to_pylist(), items_b["asin"].to_pylist()),
        "values": _value_changes(a, b, old, new),
        "features": {},
    }
    for name in (
        sorted({*old.sets_with("features")} & {*new.sets_with("features")})
        if len(common) >= 3
        else ()
    ):
        found["features"][name] = similarity = _measure_similarity(a, b, name, common, changed)
        for entry in similarity["most_changed"]:
            item = items_a.slice(common[entry.pop("item_id")][0], 1).to_pylist()[0]
            entry |= {column: item[column] for column in ("asin", "title")}
    changes = (
        ["major"] * bool(found["schema"])
        + ["minor"] * bool(found["rows"])
        + ["patch"] * bool(found["values"])
    )
    changes += [f["bump"] for f in found["features"].values()]
    changes += ["minor" for line in found["values"] if line.startswith("semantic_ids/")]
    bump, version = next((part for part in PARTS if part in changes), "none"), old.version
    if bump in PARTS:
        numbers, place = [int(part) for part in version.split(".")], PARTS.index(bump)
        version = ".".join(
            map(str, [*numbers[:place], numbers[place] + 1, *[0] * (len(PARTS) - place - 1)])
        )
    return found | {"bump": bump, "version": version}


def describe_diff(diff: dict[str, Any]) -> Iterator[str]:
    parts = ("schema", "rows", "values")
    same = [part for part in parts if not diff[part]] + [
        n for n, f in diff["features"].items() if "a" not in f
    ]
    for part in parts:
        yield from (f"{part}: {line}" for line in diff[part])
    for name, f in diff["features"].items():
        if name in same:
            continue
        old, new, cosine = f["a"], f["b"], f["cosine"]
        drawn = f" by {f['sampled']:,} items drawn by seed" if "sampled" in f else ""
        own = "" if cosine is None else f"cosine of old and new {cosine:.3f}, "
        yield (
            f"{name}: {_describe_bump(f['bump'])}: {format_overlap(f)} of {f['neighbours']} neighbours shared{drawn}, "
            f"CKA {f['cka']:.4f}, {own}effective rank {old['effective_rank']:.1f} -> {new['effective_rank']:.1f}, "
            f"mean cosine {old['mean_cosine']:.3f} -> {new['mean_cosine']:.3f}"
        )
        for e in f["most_changed"]:
            if e["overlap"] < 1:
                yield f"{name}: most changed {e['asin']} ({e['overlap']:.0%} shared) {e['title']}"
    if same:
        yield f"the same: {', '.join(same)}"
    yield f"version: {describe_verdict(diff)}"


def describe_verdict(diff: dict[str, Any]) -> str:
    versions = (
        f"{diff['a']['version']} -> {diff['version']}; it calls itself {diff['b']['version']}"
    )
    return f"{_describe_bump(diff['bump'])}: {versions}"


def _describe_bump(bump: str) -> str:
    return "nothing changed" if bump == "none" else f"a {bump} change"


def common_rows(before: pa.Table, after: pa.Table) -> Pairs:
    at = {asin: i for i, asin in enumerate(after["asin"].to_pylist())}
    return [(i, at[asin]) for i, asin in enumerate(before["asin"].to_pylist()) if asin in at]


def _schema_changes(old: Manifest, new: Manifest) -> list[str]:
    # changes that break readers of the old release; tables of a feature set are one entry
    before, after = (
        {
            f.path.rpartition("/")[0] if f.table == "features" else f.path: f.columns or []
            for f in _list_tables(release)
        }
        for release in (old, new)
    )
    changes = [f"{where}: gone" for where in before if where not in after]
    for where in before.keys() & after.keys():
        changes += [
            f"{where}: column {c.name} was {c.type}" for c in before[where] if c not in after[where]
        ]
    return sorted(changes)


def _row_changes(before: list[str], after: list[str]) -> list[str]:
    old, new = set(before), set(after)
    changes = [f"{len(new - old):,} items new"] if new - old else []
    changes += [f"{len(old - new):,} items gone"] if old - new else []
    if [asin for asin in after if asin in old] != [asin for asin in before if asin in new]:
        changes.append("items are numbered in another order")
    return changes


def _value_changes(a: Path, b: Path, old: Manifest, new: Manifest) -> list[str]:
    before, changes = {f.path: f.sha256 for f in _list_tables(old)}, []
    for path, sha256 in ((f.path, f.sha256) for f in _list_tables(new)):
        if path not in before:
            changes.append(f"{path}: new")
        elif before[path] != sha256:
            # a file contains its version, so hashes may differ while values are equal
            was, now = (pq.read_table(folder / path, partitioning=None) for folder in (a, b))
            changes += [] if was.equals(now) else [f"{path}: changed"]
    return sorted(changes)


def _list_tables(release: Manifest) -> list[File]:
    return [file for file in release.files if file.table is not None]


def _measure_similarity(a: Path, b: Path, name: str, common: Pairs, changed: int) -> dict[str, Any]:
    """Return the similarity of a feature set's versions, and the bump that it requires: major, minor, patch or none."""
    old, new = read_versions(a, b, name, common)
    found: dict[str, Any] = {
        "items": len(common),
        "neighbours": min(NEIGHBOURS, len(common) - 1),
        "most_changed": [],
    }
    if np.array_equal(old.vectors, new.vectors):
        return found | {"overlap": 1.0, "cka": 1.0, "cosine": 1.0, "equal": True, "bump": "none"}
    comparison = compare_sets([old, new], changed)
    found |= {k: v for k, v in comparison["pairs"][0].items() if k not in ("a", "b")} | comparison[
        "sets"
    ]
    cosine = None
    if old.vectors.shape == new.vectors.shape:
        (unit_old, directed_old), (unit_new, directed_new) = (
            unit_rows(old.vectors),
            unit_rows(new.vectors),
        )
        cosines = np.einsum("if,if->i", unit_old, unit_new, dtype=np.float64)
        cosines[~directed_old & ~directed_new] = 1  # no content in either release
        cosine = round(float(cosines.mean()), 6)
    found |= {"cosine": cosine, "equal": False}
    # unlike cosines, neighbours and CKA are invariant to rotations, which break models trained on the old features
    if found["cosine"] is not None and all(found[key] >= low for key, low in SAME.items()):
        return found | {"bump": "patch"}
    return found | {
        "bump": "minor" if all(found[key] >= low for key, low in KIN.items()) else "major"
    }


def read_versions(a: Path, b: Path, name: str, common: Pairs) -> list[FeatureSet]:
    """Return a feature set of both releases, named a and b, on their common items."""
    sets = []
    for which, folder, rows in (("a", a, [i for i, _ in common]), ("b", b, [j for _, j in common])):
        paths = io.shards(folder / "features" / name, "features")
        vectors = io.matrix(
            pa.concat_tables([pq.read_table(p, columns=["vector"]) for p in paths])["vector"]
        )
        sets.append(FeatureSet(which, str(folder), vectors[rows]))
    return sets


def render_changes(a: Path, b: Path, diff: dict[str, Any], images: Path, kind: str) -> str:
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a, items_b = (pq.read_table(f / "items.parquet", columns=columns) for f in (a, b))
    common = common_rows(items_a, items_b)
    items = items_b.take([j for _, j in common])
    at = {asin: i for i, asin in enumerate(items["asin"].to_pylist())}
    pairs = []
    for name, f in diff["features"].items():
        if most := [(at[e["asin"]], e["overlap"]) for e in f["most_changed"] if e["overlap"] < 1]:
            old, new = read_versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({diff['a']['version']})")
            new = replace(new, name=f"{name} after ({diff['b']['version']})")
            pairs.append(changed_items(old, new, most))
    parts = [
        [part, line] for part in ("schema", "rows", "values") for line in diff[part] or ["the same"]
    ]
    tables = [Table("Contents", "", ["part", "difference"], parts, texts=2), _features_table(diff)]
    return compared_page(
        "diff", diff["b"]["dataset"], describe_verdict(diff),
        [Section("what", "What changed", "What changed", tables=tables)],
        kind=kind, title=f"{diff['b']['dataset']} {diff['a']['version']} and {diff['b']['version']}", pairs=pairs,
        items=items, images=stored_pictures(images, items, at),
        imageless=f"No images: {images.name} has none here, and releases hold addresses only.",
    )  # fmt: skip


def _features_table(diff: dict[str, Any]) -> Table:
    shapes = [
        (which, figure) for figure in ("effective_rank", "mean_cosine") for which in ("a", "b")
    ]
    rows = [
        [
            name,
            f["bump"],
            format_overlap(f),
            f"{f['cka']:.4f}",
            "" if f["cosine"] is None else f"{f['cosine']:.3f}",
        ]
        + [f"{f[which][figure]:.3f}" if which in f else "" for which, figure in shapes]
        for name, f in diff["features"].items()
    ]
    head = ["feature set", "change", "neighbours shared", "linear CKA", "own cosine"]
    head += ["rank before", "after", "cosine before", "after"]
    note = (
        "Of the common items. Change: what the similarity calls for, by semantic versioning. Own cosine: of an item's "
        "old and new vector. Rank: number of directions in use. Cosine: the mean over pairs of items. "
        "Neither is computed where the vectors are the same."
    )
    return Table("Features", note, head, rows, texts=2)
