"""Reads the outputs of one dataset's stages for the report; a missing stage is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.report import coded
from pipeline.report.coded import Groups, Judged
from pipeline.report.params import Report
from pipeline.run import Run
from pipeline.train.params import Released


@dataclass(frozen=True)
class Evidence:
    """The content of the page; None or empty for a stage that did not run."""

    dataset: str
    kind: str
    """of the source"""
    released: str
    """the feature set that the released recommender is trained on"""
    interactions: pa.Table | None
    items: pa.Table | None
    """item_id, asin, title, categories, text_status of table ITEMS"""
    statuses: pa.Table | None
    """item_id, status, reason of table IMAGES"""
    edges: dict[str, pa.Table]
    """feature set -> EDGES"""
    results: pa.Table | None
    slices: pa.Table | None
    tests: pa.Table | None
    tuning: pa.Table | None
    """TUNING; None where settings were used as given"""
    sweeps: dict[str, tuple[list[dict[str, Any]], pa.Table]]
    """name of the sweep -> the best valid figure at each pair of values of two settings, and RESULTS of the winners"""
    study: dict[str, pa.Table]
    """part -> its table, see schemas.STUDY"""
    curves: list[dict[str, Any]]
    """a row a value of the study's sweeps of one key: sweep, key, value, mean and sd of valid Recall@20"""
    heatmaps: list[dict[str, Any]]
    """a row a pair of values of the study's sweeps of several keys"""
    probes: dict[str, Any] | None
    coded: list[Judged]
    """figures of semantic IDs"""
    groups: Groups | None
    """items by the prefix of their semantic ID"""
    histories: dict[str, list[dict[str, Any]]]
    """pretrain, train -> training curve"""
    records: list[dict[str, Any]]
    """run.json of every stage that ran, in order"""


def records(layout: Layout, stages: Iterable[str]) -> list[dict[str, Any]]:
    """Return run.json of those of some stages that ran, in order.

    Raises:
        UserError: that of a finished stage is gone: what it says of machine and time would be left out in silence.
    """
    stages = list(stages)
    for stage in stages:
        if layout.seal(stage).exists() and not layout.run_record(stage).exists():
            raise UserError(
                f"{layout.run_record(stage)} is gone; run `alignrec {stage} {layout.dataset}`, which makes it again"
            )
    return [io.read_json(path) for stage in stages if (path := layout.run_record(stage)).exists()]


def evidence(run: Run, stages: Sequence[str]) -> Evidence:
    """Read the outputs of the stages that exist, each table checked."""
    layout = run.layout
    columns = ["item_id", "asin", "title", "categories", "text_status"]
    edges = layout.folder("graph").glob("*/edges.parquet")
    histories = {stage: layout.history(stage) for stage in ("pretrain", "train")}
    statuses = [
        io.read_table(p, schemas.IMAGES, ["item_id", "status", "reason"])
        for p in sorted(layout.images.glob("*.parquet"))
    ]
    items = io.read_table(layout.items, schemas.ITEMS, columns) if layout.items.exists() else None
    judged = coded.gathered(layout)
    return Evidence(
        dataset=run.dataset,
        kind=run.source.kind,
        released=run.params[Released].features,
        interactions=run.read(layout.interactions, schemas.INTERACTIONS) if layout.interactions.exists() else None,
        items=items,
        statuses=pa.concat_tables(statuses) if statuses else None,
        edges={p.parent.name: run.read(p, schemas.EDGES) for p in sorted(edges)},
        results=run.read(layout.results, schemas.RESULTS) if layout.results.exists() else None,
        slices=run.read(layout.slices, schemas.SLICES) if layout.slices.exists() else None,
        tests=run.read(layout.tests, schemas.TESTS) if layout.tests.exists() else None,
        tuning=run.read(layout.tuning, schemas.TUNING) if layout.tuning.exists() else None,
        sweeps={
            " · ".join(names): (
                io.read_json(layout.sweep_effects(*names)),
                run.read(layout.sweep_results(*names), schemas.RESULTS),
            )
            for names in layout.sweeps()
        },
        study=study(layout),
        curves=_plotted(layout, "curves"),
        heatmaps=_plotted(layout, "heatmaps"),
        probes=io.read_json(layout.probes) if layout.probes.exists() else None,
        coded=judged,
        groups=coded.groups(layout, judged, len(items))
        if items and len(items) <= run.params[Report].searchable
        else None,
        histories={stage: io.read_json(path) for stage, path in histories.items() if path.exists()},
        records=records(layout, stages),
    )


def study(layout: Layout) -> dict[str, pa.Table]:
    """Return the tables of the study that exist, by part."""
    paths = {part: layout.study(part) for part in schemas.STUDY}
    return {part: io.read_table(path, schemas.STUDY[part]) for part, path in paths.items() if path.exists()}


def _plotted(layout: Layout, part: str) -> list[dict[str, Any]]:
    path = layout.study_plot(part)
    return list(io.read_json(path)) if path.exists() else []


def ranked(path: Path, users: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return the first K items of some users in a table rankings(K), without the places that are empty."""
    kind = pq.read_schema(path).field("items").type
    rows = io.read_table(path, schemas.rankings(kind.list_size)).filter(pc.is_in(pc.field("user_id"), pa.array(users)))
    lists = zip(rows["user_id"].to_pylist(), rows["items"].to_pylist(), strict=True)
    return {user: [item for item in items[:k] if item >= 0] for user, items in lists}


def images(run: Run) -> Iterator[pa.Table]:
    """Yield item_id and image of table IMAGES, a shard at a time."""
    for path in sorted(run.layout.images.glob("images-*.parquet")):
        yield io.read_table(path, schemas.IMAGES, ["item_id", "image"])
