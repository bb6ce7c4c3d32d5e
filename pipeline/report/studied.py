"""The study as sections: mask modality, the long tail, variants, sweeps, the article's argument."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.evidence import Cell, seeds_of
from pipeline.models import RELEASED
from pipeline.report import argument, plots, study, words
from pipeline.report import tail as facts
from pipeline.report.argument import SHAPES, SPOILT
from pipeline.report.difference import Difference
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Chart, Intervals, Picture, Section, Shares
from pipeline.report.tail import Groups, Shown
from pipeline.report.words import RECALL
from pipeline.study import summaries
from pipeline.study.summaries import WHOLE, Masked

LINES = 4
"""most runs in a picture of groups, best Recall@20 first"""
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {"popularity": {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}, "history": {}}
MARKS = 5
"""epochs marked under a curve, about"""


def sections(outputs: Outputs) -> Iterator[Section]:
    mask, variants = (outputs.study.get(part, schemas.STUDY[part].empty_table()) for part in ("mask", "variants"))
    curves, heatmaps = (outputs.plotted(part) for part in ("curves", "heatmaps"))
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, masked(mask), tables=study.masked(mask))
    note = "Encoders that were pre-trained with other settings, each against the recipe that is released."
    drawn, heading = variants_changes(variants), "Variants of pre-training"
    yield Section("variants", "Variants", heading, note, drawn, tables=study.variants(variants))
    note = "Settings of AlignRec, its graph and its encoder, measured on valid only: test was not opened for them."
    heading, maps, points = "Hyper-parameters", study.heatmaps(heatmaps), study.sweep_points(curves)
    yield Section("settings-swept", heading, heading, note, sweep_charts(curves), maps, points)


def masked(mask: pa.Table) -> list[Picture | None]:
    """Return Recall@20 over what is masked, per protocol and feature set: a curve from three ratios, else rows."""
    drawn = []
    protocols = list(summaries.by_protocol(summaries.masked(mask)))
    for (protocol, _), rows in protocols:
        for features in dict.fromkeys(row.features for row in rows):
            own = [row for row in rows if row.features == features]
            title = f"{features}: test {RECALL}, {words.spread(len(row.recall.values) for row in own)}"
            drawn.append(_masked(words.after(title, protocol if len(protocols) > 1 else ""), own))
    return drawn


def _masked(title: str, rows: Sequence[Masked]) -> Picture | None:
    ratios = sorted({row.ratio for row in rows})
    if len(ratios) < 3:
        lost = ["" if row.change is None else f", {row.change.mean:+.1%}" for row in rows]
        means = [plots.mean(row.items, row.recall, change) for row, change in zip(rows, lost, strict=True)]
        return plots.intervals(title, means, axis=RECALL)
    lines = {
        f"{modality} masked": {row.ratio: row.recall for row in rows if row.modality in (modality, WHOLE)}
        for modality in dict.fromkeys(row.modality for row in rows if row.modality != WHOLE)
    }
    return plots.curves(f"{title}, by share masked", ratios, lines, ("share masked", RECALL))


def variants_changes(table: pa.Table) -> list[Picture | None]:
    rows = study.recommended(table)
    if not rows:
        return []
    over = seeds_of(row["seeds"] for row in rows).replace("seed", "training")
    title = f"Change in test {words.measure('recall', rows[0]['k'])} against the recipe over {over}, 95 % interval"
    changed = [(study.variant(row, rows), Difference.if_any(row)) for row in rows]
    return [plots.intervals(title, [plots.change(name, change) for name, change in changed if change])]


def sweep_charts(curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart per sweep of one key: mean ± sd of valid Recall@20 over its values."""
    charts = []
    for sweep, key in dict.fromkeys((row["sweep"], row["key"]) for row in curves):
        points = [row for row in curves if row["sweep"] == sweep]
        if len(points) > 1:
            places = {float(i): f"{row['value']:.4g}" for i, row in enumerate(points)}
            line = {float(i): Cell(row[summaries.RECALL], row["sd"], ()) for i, row in enumerate(points)}
            title = f"{sweep}: valid {RECALL} by {key}, {words.spread(row['seeds'] for row in points)}"
            charts.append(plots.curves(title, places, {key: line}, (key, f"valid {RECALL}")))
    return charts


def tail_section(outputs: Outputs) -> Section:
    studied = outputs.study.get("tail", schemas.TAIL.empty_table())
    drawn: list[Picture | None] = []
    said: list[str] = []
    tables = facts.tails(studied)
    tested = bool(tables)
    for comparison, label in words.labelled(outputs.compared):
        k, slices = facts.sliced(outputs.slices, comparison)
        over = words.after(f"mean over {seeds_of(r.seeds for r in comparison.rows)}", label)
        who = facts.shown(slices)
        said += facts.in_words(who, words.run(RELEASED, outputs.released))
        drawn.append(shares(who, f"Who is shown: share of the top {k}, {over}"))
        for which in facts.SLICES:
            groups = facts.by_study(studied, comparison, which) if tested else facts.by_slices(slices, which)
            title = f"{WHOSE[which]}, {'95 % interval, ' if tested else ''}{over}"
            drawn.append(served(groups, which, title, outputs.released))
        of_slices = [] if tested else [table for which in facts.SLICES for table in facts.means(slices, which, k)]
        tables += [table.under(label) for table in (*facts.catalogue(slices, k), *of_slices)]
    note = " ".join(["A recommender can be right by showing everybody the same few items.", *said])
    return Section("tail", "Long tail", "The long tail", note, drawn, tables=tables)


def shares(who: Shown, title: str) -> Shares | None:
    rows = [(run, list(parts.values())) for run, parts in who.items()]
    return Shares(title, list(next(iter(who.values()))), rows) if rows else None


def served(groups: Groups, which: str, title: str, released: str) -> Intervals | None:
    """Return recall of each group under the best few models on the released features or on ids only."""
    runs = [run for run in groups if run[1] in (released, "none")][:LINES]
    labels = list(dict.fromkeys(label for run in runs for label in groups[run]))
    rows = [plots.Row(UNITS[which].get(label, label), [groups[run].get(label) for run in runs], "") for label in labels]
    return plots.intervals(title, rows, [words.run(*run) for run in runs], axis="recall")


def argument_sections(outputs: Outputs) -> Iterator[Section]:
    wrong, geometry, joint, epochs = (
        outputs.study.get(part, schemas.STUDY[part].empty_table())
        for part in ("wrong", "geometry", "joint", "joint_epochs")
    )
    note = "What recommenders lose if the image or the text of some items is another item's, or their vector is noise."
    drawn = [chart for rows in argument.by_fingerprint(wrong) for chart in spoilt(rows)]
    yield Section("wrong", "Wrong content", "Wrong content", note, drawn, tables=argument.wrong(wrong))
    note = "AlignRec trained to the last epoch without one of its losses: the shape of its item vectors, and recall."
    heading, tables = "What each loss prevents", argument.geometry(geometry)
    yield Section("geometry", "Losses", heading, note, shaped(argument.shapes(geometry)), tables=tables)
    note = "The article's opening claim: if one loss trains encoder and recommender together, content is lost."
    yield Section("joint", "Joint", "Joint and staged", note, joint_curves(epochs), tables=argument.joint(joint))


def spoilt(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart per model and feature set: test recall over the share of items with wrong content."""
    charts = []
    for model, features in dict.fromkeys((row["model"], row["features"]) for row in rows):
        own = [row for row in rows if (row["model"], row["features"]) == (model, features)]
        lines = {
            name: {row["ratio"]: Cell(row["mean"], row["sd"], ()) for row in own if row["what"] in (what, WHOLE)}
            for what, name in SPOILT.items() if any(row["what"] == what for row in own)
        }  # fmt: skip
        recall = words.measure("recall", own[0]["k"])
        title = f"{model} on {features}: test {recall}, {words.spread(row['seeds'] for row in own)}"
        charts.append(plots.curves(title, {row["ratio"] for row in own}, lines, ("share of items", recall)))
    return charts


def joint_curves(epochs: pa.Table) -> list[Chart]:
    columns = {"recall@20": "best valid Recall@20", "item_cf": "item-CF hit@20"} if len(epochs) else {}
    return [c for column, name in columns.items() for c in _over_epochs(name, argument.lines(epochs, column))]


def shaped(found: Mapping[str, Mapping[str, Mapping[int, Cell]]]) -> list[Chart]:
    return [chart for column, name, _ in SHAPES if found for chart in _over_epochs(name, found[column])]


def _over_epochs(name: str, lines: Mapping[str, Mapping[Any, Cell]]) -> list[Chart]:
    epochs = sorted({epoch for line in lines.values() for epoch in line})
    marks = sorted({*epochs[:1], *epochs[:: max(1, len(epochs) // MARKS)], *epochs[-1:]})
    return [plots.curves(f"{name} by epoch", marks, lines, ("epoch", name))] if len(epochs) > 1 else []
