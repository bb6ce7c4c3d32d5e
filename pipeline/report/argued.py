"""The article's argument as sections: wrong content, what each loss of AlignRec prevents, joint beside staged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.evidence import Cell, seeds_of
from pipeline.facts import argument, words
from pipeline.facts.argument import SHAPES, SPOILT
from pipeline.facts.outputs import Outputs
from pipeline.report import plots
from pipeline.report.plots import Chart
from pipeline.report.section import Section
from pipeline.study.summaries import WHOLE

RECALL = "best valid Recall@20"
MARKS = 5
"""epochs that are written under a curve, about"""


def sections(outputs: Outputs) -> Iterator[Section]:
    """Yield wrong content, what losses prevent, and joint training; each is empty where it was not studied."""
    wrong, geometry, joint, epochs = (
        outputs.study.get(part, schemas.STUDY[part].empty_table())
        for part in ("wrong", "geometry", "joint", "joint_epochs")
    )
    note = (
        "What recommenders lose when the image or the text of some items is another item's, or their vector is noise."
    )
    drawn = [chart for rows in argument.by_fingerprint(wrong) for chart in spoilt(rows)]
    yield Section("wrong", "Wrong content", "Wrong content", note, drawn, tables=argument.wrong(wrong))
    note = "AlignRec trained to the last epoch without one of its losses: the shape of its item vectors, beside recall."
    heading = "What each loss prevents"
    tables = argument.geometry(geometry)
    yield Section("geometry", "Losses", heading, note, shaped(argument.shapes(geometry)), tables=tables)
    note = "The article's opening claim: where one loss trains encoder and recommender together, content is lost."
    heading = "Joint beside staged"
    yield Section("joint", "Joint", heading, note, curves(epochs), tables=argument.joint(joint))


def spoilt(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart a model and feature set: test recall over the share of items whose content is wrong."""
    charts = []
    for model, features in dict.fromkeys((row["model"], row["features"]) for row in rows):
        own = [row for row in rows if (row["model"], row["features"]) == (model, features)]
        lines = {
            name: {row["ratio"]: Cell(row["mean"], row["sd"], ()) for row in own if row["what"] in (what, WHOLE)}
            for what, name in SPOILT.items() if any(row["what"] == what for row in own)
        }  # fmt: skip
        recall = words.measure("recall", own[0]["k"])
        title = f"{model} on {features}: test {recall}, mean ± sd over {seeds_of(row['seeds'] for row in own)}"
        places = {row["ratio"]: f"{row['ratio']:.4g}" for row in own}
        charts.append(plots.curves(title, places, lines, ("share of items", recall)))
    return charts


def curves(epochs: pa.Table) -> list[Chart]:
    """Return the best valid recall over epochs and over seconds, and a probe of the encoder over epochs."""
    shown = (("recall@20", RECALL, "epoch"), ("recall@20", RECALL, "seconds"), ("item_cf", "item-CF hit@20", "epoch"))
    charts = []
    for column, name, over in shown if len(epochs) else ():
        lines = argument.lines(epochs, column, over)
        ends = sorted({x for line in lines.values() for x in line})
        if len(ends) > 1:
            places = {ends[0]: f"{ends[0]:.0f}", ends[-1]: f"{ends[-1]:.0f}"}
            charts.append(plots.curves(f"{name} by {over}", places, lines, (over, name)))
    return charts


def shaped(found: Mapping[str, Mapping[str, Mapping[int, Cell]]]) -> list[Chart]:
    """Return a chart a measure, over epochs, a line a loss that is left out."""
    charts = []
    for column, name, _ in SHAPES if found else ():
        lines = {loss: {float(epoch): one for epoch, one in line.items()} for loss, line in found[column].items()}
        epochs = sorted({epoch for line in lines.values() for epoch in line})
        if len(epochs) > 1:
            places = {epoch: f"{epoch:g}" for epoch in epochs[:: max(1, len(epochs) // MARKS)]}
            places |= {epochs[0]: f"{epochs[0]:g}", epochs[-1]: f"{epochs[-1]:g}"}
            charts.append(plots.curves(name, places, lines, ("epoch", name)))
    return charts
