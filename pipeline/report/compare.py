"""`alignrec compare`: compare feature sets of one dataset by probes, similarity and training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.evaluation.cutoff import bounded_cutoff
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.registry import Data
from alignrec.pipeline.report import feature_set, sections, verdict
from alignrec.pipeline.report.feature_set import FeatureSet
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import Section
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import Run

CHANGED = 12  # most changed items per pair


def compare(layout: Layout, params: Parameters, specs: Sequence[str], seeds: int, to: Path,
            order: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Compare feature sets, each named as in `read_set`, and write compare.json and index.html."""
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    sets = feature_set.with_distinct_names(
        [feature_set.read_set(spec, layout, asins, order) for spec in specs]
    )
    from alignrec.pipeline.report import (
        judge,
        similarity,
    )  # slow import, deferred until the sets are read

    rows, whole = feature_set.common_items(sets), sets
    items, sets = (
        items_of(layout, asins).take(rows),
        [replace(g, vectors=g.vectors[rows], there=None) for g in sets],
    )
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    if len(rows) < len(asins):
        (interactions,) = _renumber_items([interactions], rows, len(asins))
    data, named = Data(interactions, len(rows)), {g.name: g.vectors for g in sets}
    seed = Run("probe", layout.dataset, params, layout.root).seed(
        "folds"
    )  # same folds as stage `probe`
    comparison: dict[str, Any] = {
        "dataset": layout.dataset,
        "sources": {g.name: g.source for g in sets},
    }
    judged = judge.probe_sets(named, data, params[Probe].ks, seed, params[Probe].width)
    encoded = (feature_set.read_encoded(layout, name) for name in layout.feature_sets())
    others = (replace(g, vectors=g.vectors[rows]) for g in encoded)  # lazily, which bounds memory
    comparison |= judged | similarity.compare_sets(sets, CHANGED, others)
    comparison["items"] = {"compared": len(rows), "of": len(asins)}
    if seeds:
        comparison["training"] = train_sets(layout, params, whole, seeds, to)
    outputs = Outputs(layout, params.source(layout.dataset).kind)
    images = _renumber_items(outputs.images("image"), rows, len(asins))
    pairs, vectors = [], {g.name: g for g in sets}
    for pair in comparison["pairs"]:
        most = [(changed["item_id"], changed["overlap"]) for changed in pair["most_changed"]]
        pairs.append(similarity.changed_items(vectors[pair["a"]], vectors[pair["b"]], most))
    text = render_comparison(outputs, comparison, pairs, items, images)
    io.write_bytes(to / "index.html", text.encode())
    for changed in (one for pair in comparison["pairs"] for one in pair["most_changed"]):
        changed["item_id"] = int(rows[changed["item_id"]])
    io.write_json(to / "compare.json", comparison)
    return comparison


def _renumber_items(tables: Iterable[pa.Table], rows: np.ndarray, items: int) -> Iterator[pa.Table]:
    """Yield the rows whose `item_id` is in `rows`, renumbered by position."""
    place = np.full(items, -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    for table in tables:
        at, ids = table.column_names.index("item_id"), pa.array(place[table["item_id"].to_numpy()])
        yield table.set_column(at, table.schema.field(at), ids).filter(pc.greater_equal(ids, 0))


def train_sets(
    layout: Layout, params: Parameters, sets: Sequence[FeatureSet], seeds: int, to: Path
) -> dict[str, Any]:
    from alignrec.pipeline.benchmark import plan  # loads torch, needed only for training
    from alignrec.pipeline.benchmark.cell import DatasetData
    from alignrec.pipeline.benchmark.experiment import Store, complete_cells, read_evaluation
    from alignrec.pipeline.benchmark.significance import summarise_recalls
    from alignrec.pipeline.models.training import inputs

    data = {}
    for g in sets:
        path = to / "features" / f"{g.name}.npy"
        io.write_npy(path, g.vectors)
        data[g.name] = DatasetData(layout, path, graph=params[Graph])
    split = inputs.read_inputs(layout, None).split
    rules, k = protocol_of(params, layout.dataset, split), bounded_cutoff(split.n_items)
    planned = plan.plan_compared(params, data, plan.COMPARED, seeds, rules, split.n_items)
    found = complete_cells(planned, Store(to / "cells"), params[Benchmark].workers)
    judged = []
    for protocol in rules.variants:
        by_run = {
            one: read_evaluation(r.rankings[protocol.suffix], split, [k])
            for one, r in found.items()
        }
        recalls = {one: evaluation.per_user["recall", k] for one, evaluation in by_run.items()}
        judged.append(protocol.label | summarise_recalls(recalls, [*data]))
    return judged[0] | ({"also": judged[1:]} if judged[1:] else {})


def render_comparison(
    outputs: Outputs, comparison: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], items: pa.Table,
    images: Iterable[pa.Table],
) -> str:  # fmt: skip
    """Return the page of a comparison; `items` has asin, title and categories of the compared items."""
    rows = [[name, source] for name, source in comparison["sources"].items()]
    sources = Table(
        "Files",
        "",
        ["feature set", "file, and how its rows were matched with items"],
        rows,
        texts=2,
    )
    shapes = [sources, *verdict.shape_tables(comparison)]
    drawn = sections.probe_charts(verdict.probe_figures(comparison))
    doubts = " ".join(verdict.describe_doubts(comparison))
    parts = [
        Section(
            "judged", "Judged", "Judged", doubts, drawn, tables=verdict.judged_tables(comparison)
        ),
        Section(
            "similarity",
            "Similarity" * bool(pairs),
            "Shape" + " and similarity" * bool(pairs),
            tables=shapes,
        ),
    ]
    return compared_page(
        "compare", outputs.layout.dataset, " · ".join(comparison["sets"]), parts, kind=outputs.kind, pairs=pairs,
        items=items, images=images, headline=verdict.headline_sentence(comparison),
        verdict=verdict.pair_verdicts(comparison),
    )  # fmt: skip


def items_of(layout: Layout, asins: list[str]) -> pa.Table:
    if (items := Outputs(layout).items) is not None:
        return items
    # stage `items` has not run, so titles and categories are unknown
    categories = pa.array([[]] * len(asins), pa.list_(pa.string()))
    return pa.table({"asin": asins, "title": [""] * len(asins), "categories": categories})
