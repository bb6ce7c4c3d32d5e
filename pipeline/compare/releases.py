"""Differences of two releases in schema, rows and values, and the semantic version that they call for."""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import io
from pipeline.compare.feature_set import FeatureSet
from pipeline.compare.similarity import NEIGHBOURS, compared
from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows
from pipeline.release.manifest import SEMANTIC_IDS, Manifest
from pipeline.release.read import Release
from pipeline.release.semantic_ids import names as coded
from pipeline.report.comparison import shared
from pipeline.semantic_ids.files import IDS

ITEMS = "items.parquet"
PARTS = ("major", "minor", "patch")
SAME = {"overlap": 0.9, "cka": 0.99, "cosine": 0.99}
"""least similarity of a patch: models trained on the old features still work"""
KIN = {"overlap": 0.5, "cka": 0.9}
"""least similarity of a minor version: conclusions hold, but models need retraining"""
Pairs = list[tuple[int, int]]
"""row of each common item in the older and in the newer release"""


def diff(a: Path, b: Path, changed: int) -> dict[str, Any]:
    """Return the differences from the older release `a` to the newer `b`, both verified by the caller.

    Args:
        changed: number of items named per feature set.

    Returns:
        `schema`, `rows`, `values`: lines of text; `features`: per common set the similarity on common items, the `bump`
        it calls for, and the shapes in `a` and `b` unless equal; `semantic_ids`: per common set and method the number
        of `items` and of `changed` IDs; `bump` and `version`: of the newer one, by semantic versioning.

    Raises:
        UserError: a release without items, or no item in common.
    """
    old, new = Release(a).refuse_without("items").manifest, Release(b).refuse_without("items").manifest
    before = {f.path: f.sha256 for f in old.files}
    same = {f.path for f in new.files if before.get(f.path) == f.sha256}
    items_a = pq.read_table(a / ITEMS, columns=["asin", "title"])
    items_b = items_a if ITEMS in same else pq.read_table(b / ITEMS, columns=["asin", "title"])
    if not (common := common_rows(items_a, items_b)):
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")
    schema, sets = _schema(old, new)
    found: dict[str, Any] = {
        "a": {"dataset": old.dataset, "version": old.version},
        "b": {"dataset": new.dataset, "version": new.version},
        "schema": schema,
        "rows": _rows(items_a["asin"].to_pylist(), items_b["asin"].to_pylist()),
        "values": _values(a, b, old, new),
        "features": {},
        "semantic_ids": {"/".join(k): _codes(a, b, k, common, same) for k in sorted({*coded(old)} & {*coded(new)})},
    }
    for name in sets:
        unread = {ITEMS, *_files(old, name), *_files(new, name)} <= same
        similarity = _equal(len(common)) if unread else _features(a, b, name, common, changed)
        if similarity is not None:
            most = _named(similarity["most_changed"], items_a, common)
            found["features"][name] = similarity | {"most_changed": most}
    bump = _bump(found)
    return found | {"bump": bump, "version": bumped(old.version, bump)}


def _bump(found: dict[str, Any]) -> str:
    changes = ["major"] * bool(found["schema"]) + ["minor"] * bool(found["rows"]) + ["patch"] * bool(found["values"])
    changes += [f["bump"] for f in found["features"].values()]
    changes += ["minor" for c in found["semantic_ids"].values() if c["changed"]]
    return next((part for part in PARTS if part in changes), "none")


def lines(diff: dict[str, Any]) -> Iterator[str]:
    parts = ("schema", "rows", "values")
    same = [part for part in parts if not diff[part]] + [n for n, f in diff["features"].items() if "a" not in f]
    same += [f"codes {name}" for name, c in diff["semantic_ids"].items() if not c["changed"]]
    for part in parts:
        yield from (f"{part}: {line}" for line in diff[part])
    for name, f in diff["features"].items():
        if name in same:
            continue
        old, new, cosine = f["a"], f["b"], f["cosine"]
        drawn = f" by {f['sampled']:,} items drawn by seed" if "sampled" in f else ""
        own = "" if cosine is None else f"cosine of old and new {cosine:.3f}, "
        yield (
            f"{name}: {change(f['bump'])}: {shared(f)} of {f['neighbours']} neighbours shared{drawn}, "
            f"CKA {f['cka']:.4f}, {own}effective rank {old['effective_rank']:.1f} -> {new['effective_rank']:.1f}, "
            f"mean cosine {old['mean_cosine']:.3f} -> {new['mean_cosine']:.3f}"
        )
        for e in f["most_changed"]:
            if e["overlap"] < 1:
                yield f"{name}: most changed {e['asin']} ({e['overlap']:.0%} shared) {e['title']}"
    for name, c in diff["semantic_ids"].items():
        if c["changed"]:
            yield f"codes {name}: {c['changed']:,} of {c['items']:,} items have another ID"
    if same:
        yield f"the same: {', '.join(same)}"
    yield f"version: {verdict(diff)}"


def verdict(diff: dict[str, Any]) -> str:
    versions = f"{diff['a']['version']} -> {diff['version']}; it calls itself {diff['b']['version']}"
    return f"{change(diff['bump'])}: {versions}"


def change(bump: str) -> str:
    return "nothing changed" if bump == "none" else f"a {bump} change"


def weight(similarity: dict[str, Any]) -> str:
    """Return the change that a similarity calls for: major, minor, patch or none.

    Neighbours and CKA are blind to a rotation, which breaks a network trained on the old features: hence the cosine.

    Args:
        similarity: equal, overlap of neighbours, cka, and cosine of old and new vectors (None if widths differ).
    """
    figures = {key: similarity[key] for key in SAME if similarity[key] is not None}
    if similarity["equal"]:
        return "none"
    if len(figures) == len(SAME) and all(figures[key] >= low for key, low in SAME.items()):
        return "patch"
    return "minor" if all(figures[key] >= low for key, low in KIN.items()) else "major"


def bumped(version: str, bump: str) -> str:
    """Return a semantic version one `bump` later: major, minor, patch or none."""
    if bump not in PARTS:
        return version
    numbers, place = [int(part) for part in version.split(".")], PARTS.index(bump)
    return ".".join(map(str, [*numbers[:place], numbers[place] + 1, *[0] * (len(PARTS) - place - 1)]))


def common_rows(before: pa.Table, after: pa.Table) -> Pairs:
    at = {asin: i for i, asin in enumerate(after["asin"].to_pylist())}
    return [(i, at[asin]) for i, asin in enumerate(before["asin"].to_pylist()) if asin in at]


def _tables(release: Manifest) -> dict[str, list[tuple[str, str]]]:
    """Return group of files (folder of a feature set, or file) -> columns."""
    return {
        f.path.rpartition("/")[0] if f.table == "features" else f.path: [(c.name, c.type) for c in f.columns or []]
        for f in release.files
        if f.table is not None
    }


def _schema(old: Manifest, new: Manifest) -> tuple[list[str], list[str]]:
    """Return what breaks a reader of the old release, and the feature sets of both."""
    before, after = _tables(old), _tables(new)
    lines = [f"{where}: gone" for where in before if where not in after]
    for where in before.keys() & after.keys():
        lines += [f"{where}: column {n} was {t}" for n, t in before[where] if (n, t) not in after[where]]
    common = sorted(w.rpartition("/")[2] for w in before.keys() & after.keys() if w.startswith("features/"))
    return sorted(lines), common


def _named(changed: list[dict[str, Any]], items: pa.Table, common: Pairs) -> list[dict[str, Any]]:
    return [
        {"overlap": entry["overlap"]}
        | {column: items[column][common[entry["item_id"]][0]].as_py() for column in ("asin", "title")}
        for entry in changed
    ]


def _files(release: Manifest, name: str) -> set[str]:
    return {f.path for f in release.files if f.table == "features" and f.path.startswith(f"features/{name}/")}


def _rows(before: list[str], after: list[str]) -> list[str]:
    old, new = set(before), set(after)
    lines = [f"{len(new - old):,} items new"] if new - old else []
    lines += [f"{len(old - new):,} items gone"] if old - new else []
    kept = [asin for asin in after if asin in old]
    if kept != [asin for asin in before if asin in new]:
        lines.append("items are numbered in another order")
    return lines


def _values(a: Path, b: Path, old: Manifest, new: Manifest) -> list[str]:
    """Return changed and new tables. Each file holds its version, so hashes that differ are no change of values."""
    before = {f.path: f.sha256 for f in old.files if f.table is not None}
    after = {f.path: f.sha256 for f in new.files if f.table is not None}
    touched = [path for path, sha in after.items() if path in before and before[path] != sha]
    read = partial(pq.read_table, partitioning=None)
    changed = [f"{p}: changed" for p in touched if not read(a / p).equals(read(b / p))]
    return sorted(changed + [f"{p}: new" for p in after if p not in before])


def _codes(a: Path, b: Path, key: tuple[str, str], common: Pairs, same: Collection[str]) -> dict[str, int]:
    if {ITEMS, "/".join((SEMANTIC_IDS, *key, IDS))} <= {*same}:
        return {"items": len(common), "changed": 0}
    old, new = (
        pq.read_table(folder.joinpath(SEMANTIC_IDS, *key, IDS), columns=["codes", "suffix"], partitioning=None)
        for folder in (a, b)
    )
    rows = np.array(common, np.int64).reshape(-1, 2)
    before, after = (table.take(rows[:, side]).to_pylist() for side, table in enumerate((old, new)))
    return {"items": len(common), "changed": sum(x != y for x, y in zip(before, after, strict=True))}


def _equal(items: int) -> dict[str, Any] | None:
    if items < 3:
        return None
    similarity = {"neighbours": min(NEIGHBOURS, items - 1), "overlap": 1.0, "cka": 1.0, "cosine": 1.0, "equal": True}
    return {"items": items, "most_changed": []} | similarity | {"bump": weight(similarity)}


def _features(a: Path, b: Path, name: str, common: Pairs, changed: int) -> dict[str, Any] | None:
    """Return the similarity of a feature set in both releases on common items; None for fewer than 3."""
    if len(common) < 3:
        return None
    old, new = versions(a, b, name, common)
    if np.array_equal(old.vectors, new.vectors):
        return _equal(len(common))
    comparison = compared([old, new], changed)
    similarity = {k: v for k, v in comparison["pairs"][0].items() if k not in ("a", "b")}
    similarity |= {"cosine": _cosine(old.vectors, new.vectors), "equal": False}
    return {"items": len(common)} | similarity | {"bump": weight(similarity)} | comparison["sets"]


def _cosine(old: np.ndarray, new: np.ndarray) -> float | None:
    if old.shape != new.shape:
        return None
    (unit_old, directed_old), (unit_new, directed_new) = unit_rows(old), unit_rows(new)
    cosines = np.einsum("if,if->i", unit_old, unit_new, dtype=np.float64)
    cosines[~directed_old & ~directed_new] = 1  # no content in either
    return round(float(cosines.mean()), 6)


def versions(a: Path, b: Path, name: str, common: Pairs) -> list[FeatureSet]:
    rows = np.array(common)
    sets = []
    for which, folder, column in (("a", a, 0), ("b", b, 1)):
        paths = io.shards(folder / "features" / name, "features")
        vectors = io.matrix(pa.concat_tables([pq.read_table(p, columns=["vector"]) for p in paths])["vector"])
        sets.append(FeatureSet(which, str(folder), vectors[rows[:, column]]))
    return sets
