"""Two releases side by side: differences in schema, rows and values, and the semantic version that they call for."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import io
from pipeline.compare.feature_set import FeatureSet
from pipeline.compare.similarity import NEIGHBOURS, compared
from pipeline.errors import UserError
from pipeline.facts.comparison import shared
from pipeline.ops.rows import unit_rows
from pipeline.release.manifest import SEMANTIC_IDS, Manifest
from pipeline.release.read import Release
from pipeline.release.semantic_ids import names as coded
from pipeline.semantic_ids.files import IDS

ITEMS = "items.parquet"
PARTS = ("major", "minor", "patch")
SAME = {"overlap": 0.9, "cka": 0.99, "cosine": 0.99}
"""at least so similar are features of which a new version is a patch: what was trained on the old ones still works"""
KIN = {"overlap": 0.5, "cka": 0.9}
"""at least so similar are those of which it is minor: the same neighbours, so conclusions hold, but train anew"""


def diff(a: Path, b: Path, changed: int) -> dict[str, Any]:
    """Return the differences from release `a` to release `b`.

    Args:
        a: the older release folder; verified by the caller.
        b: the newer.
        changed: items named per feature set.

    Returns:
        `schema`, `rows`, `values`: lines of text; `features`: per common feature set the similarity of the common
        items, the `bump` that it calls for, and the shape in `a` and in `b`, unless its vectors are the same (where its
        files are, they are not read); `semantic_ids`: per common set and method how many of the common `items` have
        `changed` IDs, after which a generator must be trained anew; `bump` and `version`: of the newer one, by semantic
        versioning.

    Raises:
        UserError: one of them has no items, or they have none in common.
    """
    old, new = Release(a).refuse_without("items").manifest, Release(b).refuse_without("items").manifest
    same = _same(old, new)
    items_a = pq.read_table(a / ITEMS, columns=["asin", "title"])
    items_b = items_a if ITEMS in same else pq.read_table(b / ITEMS, columns=["asin", "title"])
    rows = _rows(items_a["asin"].to_pylist(), items_b["asin"].to_pylist())
    if not (common := common_rows(items_a, items_b)):
        raise UserError(f"{a} and {b} have no item in common; are they releases of one dataset?")
    schema, sets = _schema(old, new)
    features, values = {}, _values(a, b, old, new)
    for name in sets:
        unread = {ITEMS, *_files(old, name), *_files(new, name)} <= same
        similarity = _equal(len(common)) if unread else _features(a, b, name, common, changed)
        if similarity is not None:
            features[name] = similarity | {"most_changed": _named(similarity["most_changed"], items_a, common)}
    changes = ["major"] * bool(schema) + ["minor"] * bool(rows) + ["patch"] * bool(values)
    changes += [f["bump"] for f in features.values()]
    both = sorted({*coded(old)} & {*coded(new)})
    codes = {"/".join(key): _codes(a, b, key, common, same) for key in both}
    changes += ["minor"] * any(c["changed"] for c in codes.values())
    bump = next((part for part in PARTS if part in changes), "none")
    return {
        "a": {"dataset": old.dataset, "version": old.version},
        "b": {"dataset": new.dataset, "version": new.version},
        "schema": schema,
        "rows": rows,
        "values": values,
        "features": features,
        "semantic_ids": codes,
        "bump": bump,
        "version": bumped(old.version, bump),
    }


def lines(diff: dict[str, Any]) -> Iterator[str]:
    """Yield the result of `diff` in lines: what changed, what did not in one line, and the version."""
    parts = ("schema", "rows", "values")
    same = [part for part in parts if not diff[part]] + [n for n, f in diff["features"].items() if "a" not in f]
    same += [f"codes {name}" for name, c in diff["semantic_ids"].items() if not c["changed"]]
    for part in parts:
        yield from (f"{part}: {line}" for line in diff[part])
    for name, f in diff["features"].items():
        if name in same:
            continue
        yield (
            f"{name}: {change(f['bump'])}: {shared(f)} of {f['neighbours']} neighbours shared{_drawn(f)}, "
            f"CKA {f['cka']:.4f}, {_own_cosine(f)}effective rank "
            f"{f['a']['effective_rank']:.1f} -> {f['b']['effective_rank']:.1f}, mean cosine "
            f"{f['a']['mean_cosine']:.3f} -> {f['b']['mean_cosine']:.3f}"
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
    """Return the version that the change calls for, and the one in the manifest."""
    versions = f"{diff['a']['version']} -> {diff['version']}; it calls itself {diff['b']['version']}"
    return f"{change(diff['bump'])}: {versions}"


def change(bump: str) -> str:
    """Return a change in words: of major, minor, patch or none."""
    return "nothing changed" if bump == "none" else f"a {bump} change"


def weight(similarity: dict[str, Any]) -> str:
    """Return the change that a feature set's similarity with its older version calls for: major, minor, patch or none.

    Neighbours and CKA do not see a rotation, which breaks a network trained on the old features: hence the cosine too.

    Args:
        similarity: overlap of neighbours, cka, and cosine of each item's old and new vector; None if widths differ.
    """
    figures = {key: similarity[key] for key in SAME if similarity[key] is not None}
    if similarity["equal"]:
        return "none"
    if len(figures) == len(SAME) and all(figures[key] >= low for key, low in SAME.items()):
        return "patch"
    return "minor" if all(figures[key] >= low for key, low in KIN.items()) else "major"


def bumped(version: str, bump: str) -> str:
    """Return a semantic version one `bump` later: major, minor, patch or none."""
    numbers = [int(part) for part in version.split(".")]
    if bump in PARTS:
        place = PARTS.index(bump)
        numbers = [*numbers[:place], numbers[place] + 1, *[0] * (len(PARTS) - place - 1)]
    return ".".join(map(str, numbers))


def common_rows(before: pa.Table, after: pa.Table) -> list[tuple[int, int]]:
    """Return the row in each of two item tables of the items of both, in the first one's order."""
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


def _named(changed: list[dict[str, Any]], items: pa.Table, common: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the items that changed most with identifier and title in place of their number."""
    return [
        {key: value for key, value in entry.items() if key != "item_id"}
        | {column: items[column][common[entry["item_id"]][0]].as_py() for column in ("asin", "title")}
        for entry in changed
    ]


def _same(old: Manifest, new: Manifest) -> set[str]:
    """Return the files whose bytes are the same in both releases, by the hashes of their manifests."""
    before = {f.path: f.sha256 for f in old.files}
    return {f.path for f in new.files if before.get(f.path) == f.sha256}


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
    """Return tables with other values, and new ones; documents do not count.

    A version is written into each file, so tables whose hashes differ are compared by values.
    """
    before = {f.path: f.sha256 for f in old.files if f.table is not None}
    after = {f.path: f.sha256 for f in new.files if f.table is not None}
    touched = [path for path, sha in after.items() if path in before and before[path] != sha]
    changed = [
        p
        for p in touched
        if not pq.read_table(a / p, partitioning=None).equals(pq.read_table(b / p, partitioning=None))
    ]
    return sorted([f"{p}: changed" for p in changed] + [f"{p}: new" for p in after if p not in before])


def _codes(
    a: Path, b: Path, key: tuple[str, str], common: list[tuple[int, int]], same: Collection[str]
) -> dict[str, int]:
    """Return how many of the common items have another ID: other codes, another suffix, or none."""
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
    """Return the similarity of a feature set whose vectors are the same; None for fewer than 3 items."""
    if items < 3:
        return None
    similarity = {"neighbours": min(NEIGHBOURS, items - 1), "overlap": 1.0, "cka": 1.0, "cosine": 1.0, "equal": True}
    return {"items": items, "most_changed": []} | similarity | {"bump": weight(similarity)}


def _features(a: Path, b: Path, name: str, common: list[tuple[int, int]], changed: int) -> dict[str, Any] | None:
    """Return the similarity of a feature set in both releases on the common items; None for fewer than 3."""
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
    """Return the mean cosine of each item's two vectors, both float32 [I, F]; None if widths differ."""
    if old.shape != new.shape:
        return None
    (unit_old, directed_old), (unit_new, directed_new) = unit_rows(old), unit_rows(new)
    cosines = np.einsum("if,if->i", unit_old, unit_new, dtype=np.float64)
    cosines[~directed_old & ~directed_new] = 1  # no content before and after
    return round(float(cosines.mean()), 6)


def _drawn(similarity: dict[str, Any]) -> str:
    return f" by {similarity['sampled']:,} items drawn by seed" if "sampled" in similarity else ""


def _own_cosine(similarity: dict[str, Any]) -> str:
    cosine = similarity["cosine"]
    return "" if cosine is None else f"cosine of old and new {cosine:.3f}, "


def versions(a: Path, b: Path, name: str, common: list[tuple[int, int]]) -> list[FeatureSet]:
    """Return a feature set in releases `a` and `b`, of the common items."""
    rows = np.array(common)
    sets = []
    for which, folder, column in (("a", a, 0), ("b", b, 1)):
        paths = io.shards(folder / "features" / name, "features")
        vectors = io.matrix(pa.concat_tables([pq.read_table(p, columns=["vector"]) for p in paths])["vector"])
        sets.append(FeatureSet(which, str(folder), vectors[rows[:, column]]))
    return sets
