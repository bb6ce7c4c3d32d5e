"""The study as sections: mask modality, variants of pre-training, sweeps, codes in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import Cell, seeds_of
from pipeline.facts import recommenders, study, words
from pipeline.facts.difference import Difference
from pipeline.facts.outputs import Outputs
from pipeline.facts.words import RECALL
from pipeline.report import plots
from pipeline.report.plots import Chart, Picture
from pipeline.report.section import Section
from pipeline.study import summaries
from pipeline.study.summaries import Masked


def sections(outputs: Outputs) -> Iterator[Section]:
    """Yield mask modality, variants of pre-training, and sweeps; each is empty where it was not studied."""
    mask, variants = (outputs.study.get(part, schemas.STUDY[part].empty_table()) for part in ("mask", "variants"))
    curves, heatmaps = (outputs.plotted(part) for part in ("curves", "heatmaps"))
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, masked(mask), tables=study.masked(mask))
    note = "Encoders that were pre-trained with other settings, each against the recipe that is released."
    drawn, heading = variants_changes(variants), "Variants of pre-training"
    yield Section("variants", "Variants", heading, note, drawn, tables=study.variants(variants))
    note = "Settings of AlignRec, its graph and its encoder, measured on valid alone: test was not opened for them."
    heading, maps, points = "Hyper-parameters", study.heatmaps(heatmaps), study.sweep_points(curves)
    yield Section("settings-swept", heading, heading, note, sweep_charts(curves), maps, points)
    note = "Each cell is the best valid Recall@20 among the settings tried there; it has not seen test."
    maps = [table for where, (effects, _) in outputs.sweeps.items() for table in study.effects(where, effects)]
    won = [recommenders.winners(where, results) for where, (_, results) in outputs.sweeps.items()]
    yield Section("sweeps", "Sweeps", "Sweeps of settings", note, maps=maps, tables=won)


def masked(mask: pa.Table) -> list[Picture | None]:
    """Return, for each protocol and feature set, Recall@20 over what is masked.

    Of three ratios or more, the whole set counted, it is a curve; else a row for each.
    """
    drawn = []
    protocols = list(summaries.by_protocol(summaries.masked(mask)))
    for (protocol, _), rows in protocols:
        for features in dict.fromkeys(row.features for row in rows):
            own = [row for row in rows if row.features == features]
            title = f"{features}: test {RECALL}, mean ± sd over {seeds_of(len(row.recall.values) for row in own)}"
            drawn.append(_masked(words.after(title, protocol if len(protocols) > 1 else ""), own))
    return drawn


def _masked(title: str, rows: Sequence[Masked]) -> Picture | None:
    ratios = sorted({row.ratio for row in rows})
    if len(ratios) < 3:
        lost = ["" if row.change is None else f", {row.change.mean:+.1%}" for row in rows]
        return plots.intervals(
            title,
            [plots.mean(row.items, row.recall, change) for row, change in zip(rows, lost, strict=True)],
            axis=RECALL,
        )
    lines = {
        f"{modality} masked": {row.ratio: row.recall for row in rows if row.modality in (modality, summaries.WHOLE)}
        for modality in dict.fromkeys(row.modality for row in rows if row.modality != summaries.WHOLE)
    }
    return plots.curves(
        f"{title}, by share masked", {ratio: f"{ratio:.4g}" for ratio in ratios}, lines, ("share masked", RECALL)
    )


def variants_changes(table: pa.Table) -> list[Picture | None]:
    """Return AlignRec's change with the encoder of each variant, against the recipe's."""
    rows = study.recommended(table)
    if not rows:
        return []
    over = seeds_of(row["seeds"] for row in rows).replace("seed", "training")
    title = f"Change in test {words.measure('recall', rows[0]['k'])} against the recipe over {over}, 95 % interval"
    changed = [(study.variant(row, rows), Difference.if_any(row)) for row in rows]
    return [plots.intervals(title, [plots.change(name, change) for name, change in changed if change])]


def sweep_charts(curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart a sweep of one key: mean valid Recall@20 over its values, in their order, with its spread."""
    charts = []
    for sweep, key in dict.fromkeys((row["sweep"], row["key"]) for row in curves):
        points = [row for row in curves if row["sweep"] == sweep]
        if len(points) > 1:
            places = {float(i): f"{row['value']:.4g}" for i, row in enumerate(points)}
            line = {float(i): Cell(row[summaries.RECALL], row["sd"], ()) for i, row in enumerate(points)}
            over = seeds_of(row["seeds"] for row in points)
            title = f"{sweep}: valid {RECALL} by {key}, mean ± sd over {over}"
            charts.append(plots.curves(title, places, {key: line}, (key, f"valid {RECALL}")))
    return charts


def in_use(parts: Mapping[str, pa.Table]) -> Section:
    """Return codes in use; empty where nothing was trained."""
    note = "What semantic IDs are worth to a recommender that writes them, beside one on item ids."
    heading = "Codes in use"
    return Section("generative", heading, heading, note, contenders(parts), tables=study.used(parts))


def contenders(parts: Mapping[str, pa.Table]) -> list[Picture | None]:
    """Return test NDCG of every contender, and the differences between them."""
    if not len(parts.get("generative", ())):
        return []
    found = study.figures(parts["generative"])
    key = "ndcg", headline(study.cutoffs(found))
    tests = parts["generative_tests"].to_pylist() if "generative_tests" in parts else []
    seeds = seeds_of(len(of[key].values) for of in found.values())
    return [
        plots.intervals(
            f"Test {words.measure(*key)}, leave-one-out, mean ± sd over {seeds}",
            [plots.mean(one, of[key]) for one, of in found.items()],
        ),
        plots.intervals(
            f"Differences in test {words.measure(*key)}, 95 % interval over users",
            [
                plots.change(f"{study.contender(test, '_a')} - {study.contender(test, '_b')}", Difference.of(test))
                for test in tests if (test["metric"], test["k"]) == key
            ],
        ),
    ]  # fmt: skip
