"""`alignrec compare`: compare feature sets of one dataset by probes and similarity."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.features.compared import (
    ComparedSet,
    common_items,
    read_set,
    with_distinct_names,
)
from alignrec.pipeline.report import sections, verdict
from alignrec.pipeline.report.gallery import item_titles, make_thumbnails
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.page import render_page
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.table import Fields, Table
from alignrec.pipeline.report.verdict import advise_comparison
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import Run

CHANGED_ITEMS = 12  # most changed items per pair


def compare(
    layout: Layout, params: Parameters, specs: Sequence[str], to: Path, order: Path | None = None
) -> dict[str, Any]:
    """Compare feature sets, named as in `read_set`, and write compare.json and index.html."""
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    sets = [read_set(spec, layout, asins, order) for spec in specs]
    sets = with_distinct_names(sets)
    rows = common_items(sets)
    sets = [replace(features, vectors=features.vectors[rows], has_row=None) for features in sets]

    comparison: dict[str, Any] = {
        "dataset": layout.dataset,
        "sources": {features.name: features.source for features in sets},
        "oddities": {features.name: [*features.oddities] for features in sets if features.oddities},
    }
    comparison |= _compare_sets(layout, params, sets, rows, len(asins))
    comparison["items"] = {"compared": len(rows), "of": len(asins)}

    outputs = Outputs(layout, params.source(layout.dataset).kind)
    page = _render_page(outputs, comparison, sets, rows, asins)
    io.write_bytes(to / "index.html", page.encode())

    for pair in comparison["pairs"]:
        for changed in pair["most_changed"]:
            changed["item_id"] = int(rows[changed["item_id"]])
    io.write_json(to / "compare.json", comparison)
    return comparison


def _compare_sets(
    layout: Layout, params: Parameters, sets: Sequence[ComparedSet], rows: np.ndarray, n_items: int
) -> dict[str, Any]:
    # slow imports, deferred until the sets are read
    from alignrec.pipeline.evaluation.probe.controls import judge_with_controls
    from alignrec.pipeline.report import similarity

    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    if len(rows) < n_items:
        (interactions,) = _renumber_items([interactions], rows, n_items)

    probe = params[ProbeParams]
    seed = Run("probe", layout.dataset, params, layout.root).seed("folds")  # as stage `probe` has
    vectors = {features.name: features.vectors for features in sets}
    data = Data(interactions, len(rows))
    judged = judge_with_controls(vectors, data, probe.ks, seed, probe.width)
    return judged | similarity.compare_sets(sets, CHANGED_ITEMS)


def _renumber_items(
    tables: Iterable[pa.Table], rows: np.ndarray, n_items: int
) -> Iterator[pa.Table]:
    """Yield the rows whose `item_id` is in `rows`, renumbered by position."""
    position = np.full(n_items, -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    for table in tables:
        ids = pa.array(position[table["item_id"].to_numpy()])
        yield io.set_column(table, "item_id", ids).filter(pc.greater_equal(ids, 0))


def _render_page(
    outputs: Outputs,
    comparison: Fields,
    sets: Sequence[ComparedSet],
    rows: np.ndarray,
    asins: Sequence[str],
) -> str:
    from alignrec.pipeline.report.similarity import changed_items  # slow import

    by_name = {features.name: features for features in sets}
    pairs = []
    for pair in comparison["pairs"]:
        overlaps = [(changed["item_id"], changed["overlap"]) for changed in pair["most_changed"]]
        pairs.append(changed_items(by_name[pair["a"]], by_name[pair["b"]], overlaps))

    shown: set[int] = set()
    for pair in pairs:
        for near in (pair["near_a"], pair["near_b"]):
            shown.update(near, *near.values())
    images = _renumber_items(outputs.images("image"), rows, len(asins))
    return render_page(
        "compared.html",
        make_thumbnails(images, shown),
        dataset=outputs.layout.dataset,
        kind=outputs.kind,
        lead=" · ".join(comparison["sets"]),
        parts=_list_sections(comparison),
        pairs=pairs,
        titles=item_titles(_read_items(outputs, asins).take(rows)),
        advice=advise_comparison(comparison),
        verdict=verdict.pair_verdicts(comparison),
    )


def _list_sections(comparison: Fields) -> list[PageSection]:
    judged = PageSection(
        "judged",
        "Judged",
        "Judged",
        note=" ".join(verdict.describe_doubts(comparison)),
        drawn=sections.probe_charts(verdict.probe_figures(comparison)),
        tables=verdict.judged_tables(comparison),
    )
    head = ["feature set", "file, and how its rows were matched with items"]
    sources = [[name, source] for name, source in comparison["sources"].items()]
    shapes = [Table("Files", "", head, sources, texts=2), *verdict.shape_tables(comparison)]
    if comparison["pairs"]:
        similar = PageSection("similarity", "Similarity", "Shape and similarity", tables=shapes)
    else:
        similar = PageSection("similarity", "", "Shape", tables=shapes)
    return [judged, similar]


def _read_items(outputs: Outputs, asins: Sequence[str]) -> pa.Table:
    if outputs.items is not None:
        return outputs.items
    # stage `items` has not run, so titles are unknown
    return pa.table({"asin": asins, "title": [""] * len(asins)})
