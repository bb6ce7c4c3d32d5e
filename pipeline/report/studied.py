"""The study as sections: mask modality, the long tail, sweeps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.benchmark import summaries
from pipeline.benchmark.summaries import WHOLE, Masked
from pipeline.evaluation.evidence import Cell, seeds_of
from pipeline.models import RELEASED
from pipeline.report import plots, study, words
from pipeline.report import tail as facts
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Chart, Intervals, Picture, Section, Shares
from pipeline.report.tail import Groups, Shown
from pipeline.report.words import RECALL

LINES = 4
"""most runs in a picture of groups, best Recall@20 first"""
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {"popularity": {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}, "history": {}}


def sections(outputs: Outputs) -> Iterator[Section]:
    mask = outputs.study.get("mask", schemas.MASK.empty_table())
    curves, heatmaps = (outputs.plotted(part) for part in ("curves", "heatmaps"))
    note = "How much AlignRec loses when it no longer sees the image, or the text, of some items."
    yield Section("mask", "Mask modality", "Mask modality", note, masked(mask), tables=study.masked(mask))
    note = "Settings of AlignRec, and its graph, measured on valid only: test was not opened for them."
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
