"""Pages for a comparison and for a diff of two releases, with images of the most changed items."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.compare import releases, similarity
from alignrec.pipeline.compare.feature_set import FeatureSet
from alignrec.pipeline.report import gallery, sections, verdict
from alignrec.pipeline.report.gallery import Sheets
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import Section
from alignrec.pipeline.report.table import Table

NEAR = 6  # neighbours shown per item


def render_comparison(
    outputs: Outputs,
    comparison: Mapping[str, Any],
    sets: Sequence[FeatureSet],
    items: pa.Table,
    images: Iterable[pa.Table],
) -> str:
    """Return the page of a comparison; `items` has asin, title and categories of the compared items."""
    named = {g.name: g for g in sets}
    pairs = [
        _changed_items(named[p["a"]], named[p["b"]], [(e["item_id"], e["overlap"]) for e in p["most_changed"]])
        for p in comparison["pairs"]
    ]
    rows = [[name, source] for name, source in comparison["sources"].items()]
    sources = Table("Files", "", ["feature set", "file, and how its rows were matched with items"], rows, texts=2)
    shapes = [sources, *verdict.shape_tables(comparison)]
    drawn = sections.probe_charts(verdict.probe_figures(comparison))
    doubts = " ".join(verdict.describe_doubts(comparison))
    parts = [
        Section("judged", "Judged", "Judged", doubts, drawn, tables=verdict.judged_tables(comparison)),
        Section("similarity", "Similarity" * bool(pairs), "Shape" + " and similarity" * bool(pairs), tables=shapes),
    ]
    packed, data = _with_images(pairs, items, images)
    return compared_page(
        "compare", outputs.layout.dataset, " · ".join(named), parts, kind=outputs.kind, packed=packed, data=data,
        pairs=pairs, headline=verdict.headline_sentence(comparison), verdict=verdict.pair_verdicts(comparison),
    )  # fmt: skip


def _changed_items(a: FeatureSet, b: FeatureSet, items: Sequence[tuple[int, float]]) -> dict[str, Any]:
    neighbours = [similarity.find_nearest(g.vectors, [i for i, _ in items], NEAR) for g in (a, b)]
    return {"a": a.name, "b": b.name, "items": items, "near_a": neighbours[0], "near_b": neighbours[1]}


def _with_images(
    pairs: Iterable[Mapping[str, Any]], items: pa.Table, images: Iterable[pa.Table]
) -> tuple[Sheets, dict[str, Any]]:
    wanted = set[int]()
    for near in (p[side] for p in pairs for side in ("near_a", "near_b")):
        wanted.update(near, *near.values())
    packed = gallery.pack_sheets(gallery.make_thumbnails(images, wanted))
    return packed, packed.table(gallery.item_titles(items), gallery.category_paths(items))


def render_changes(a: Path, b: Path, diff: dict[str, Any], images: Path, kind: str) -> str:
    columns = ["asin", "title", "categories", "image_sha256"]
    items_a, items_b = (pq.read_table(f / "items.parquet", columns=columns) for f in (a, b))
    common = releases.common_rows(items_a, items_b)
    items = items_b.take([j for _, j in common])
    at = {asin: i for i, asin in enumerate(items["asin"].to_pylist())}
    pairs = []
    for name, f in diff["features"].items():
        if most := [(at[e["asin"]], e["overlap"]) for e in f["most_changed"] if e["overlap"] < 1]:
            old, new = releases.read_versions(a, b, name, common)
            old = replace(old, name=f"{name} before ({diff['a']['version']})")
            new = replace(new, name=f"{name} after ({diff['b']['version']})")
            pairs.append(_changed_items(old, new, most))
    packed, data = _with_images(pairs, items, gallery.stored_pictures(images, items, at))
    missing = "" if packed.data else f"No images: {images.name} has none here, and releases hold addresses only."
    parts = [[part, line] for part in ("schema", "rows", "values") for line in diff[part] or ["the same"]]
    tables = [Table("Contents", "", ["part", "difference"], parts, texts=2), _features_table(diff)]
    return compared_page(
        "diff", diff["b"]["dataset"], releases.describe_verdict(diff),
        [Section("what", "What changed", "What changed", tables=tables)],
        kind=kind, title=f"{diff['b']['dataset']} {diff['a']['version']} and {diff['b']['version']}", packed=packed,
        data=data, pairs=pairs, note=missing,
    )  # fmt: skip


def _features_table(diff: dict[str, Any]) -> Table:
    shapes = [(which, figure) for figure in ("effective_rank", "mean_cosine") for which in ("a", "b")]
    rows = [
        [
            name,
            f["bump"],
            verdict.format_overlap(f),
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
