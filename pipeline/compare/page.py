"""The page of a comparison, with images of the most changed items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.compare import similarity
from pipeline.compare.feature_set import FeatureSet
from pipeline.facts import comparison as facts
from pipeline.facts import content
from pipeline.facts.chips import Chip
from pipeline.facts.outputs import Outputs
from pipeline.report import gallery, plots, probed
from pipeline.report.gallery import Sheets
from pipeline.report.page import render
from pipeline.report.plots import Section

NEAR = 6
"""neighbours beside an item"""


def html(
    outputs: Outputs,
    comparison: Mapping[str, Any],
    sets: Sequence[FeatureSet],
    items: pa.Table,
) -> str:
    """Return the page of a comparison, see command.compare; `items` has asin, title and categories."""
    named = {g.name: g for g in sets}
    pairs = [
        changed(named[p["a"]], named[p["b"]], [(e["item_id"], e["overlap"]) for e in p["most_changed"]])
        for p in comparison["pairs"]
    ]
    shapes = [facts.sources(comparison), *facts.shapes(comparison)]
    doubts, drawn = " ".join(facts.doubts(comparison)), probed.pictures(facts.probed(comparison))
    parts = [
        Section("judged", "Judged", "Judged", doubts, drawn, tables=facts.judged(comparison)),
        Section("similarity", "Similarity" * bool(pairs), "Shape" + " and similarity" * bool(pairs), tables=shapes),
    ]
    packed, data = with_images(pairs, items, outputs.images())
    chips, verdict = facts.claims(comparison), facts.sentences(comparison)
    return compared(outputs, list(named), parts, packed, data, pairs, chips, verdict)


def compared(
    outputs: Outputs,
    names: Sequence[str],
    parts: Sequence[Section],
    packed: Sheets,
    data: Mapping[str, Any],
    pairs: Sequence[Mapping[str, Any]],
    chips: Sequence[Chip] = (),
    verdict: Sequence[str] = (),
) -> str:
    """Return a page of feature sets, or of codes, side by side.

    Args:
        data: the page's table of items, see gallery.Sheets.table.
        pairs: see `changed`.
        verdict: the same in sentences, its rule last.
    """
    return render(
        "compared.html", packed, what="comparison", command="compare", dataset=outputs.layout.dataset,
        title=outputs.layout.dataset, lead=" · ".join(names), kind=outputs.kind, parts=parts, data=data, pairs=pairs,
        note="", chips=chips, verdict=verdict, plot=plots,
    )  # fmt: skip


def changed(a: FeatureSet, b: FeatureSet, items: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return two sets' neighbours of the most changed items (rows, and shares of common neighbours), for a page."""
    neighbours = [similarity.nearest(g.vectors, [i for i, _ in items], NEAR) for g in (a, b)]
    return {"a": a.name, "b": b.name, "items": items, "near_a": neighbours[0], "near_b": neighbours[1]}


def with_images(
    pairs: Iterable[Mapping[str, Any]], items: pa.Table, images: Iterable[pa.Table]
) -> tuple[Sheets, dict[str, Any]]:
    """Return the images of all items in `pairs` (see `changed`), and the page's table of items."""
    wanted = set[int]()
    for p in pairs:
        wanted |= {i for i, _ in p["items"]}
        wanted |= {other for side in (p["near_a"], p["near_b"]) for others in side.values() for other in others}
    packed = gallery.sheets(gallery.thumbnails(images, wanted))
    return packed, packed.table(content.titles(items), content.paths(items))
