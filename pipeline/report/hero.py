"""The top of the report: the pipeline as a strip, and the one picture beside the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from pipeline.facts.outputs import Outputs
from pipeline.report import judged, probed
from pipeline.report.plots import Intervals

ROWS = 8
"""of the picture"""


class Step(NamedTuple):
    """A step of the pipeline, with what came out of it."""

    name: str
    figure: str
    what: str
    seconds: str
    """how long it ran; empty where that is not known"""


def strip(outputs: Outputs) -> Iterator[Step]:
    """Yield the steps that ran, in order."""
    records = outputs.records

    def step(stage: str, name: str, figure: int, what: str) -> Step:
        return Step(name, f"{figure:,}", what, _lasted(records[stage]["seconds"]))

    if record := records.get("interactions"):
        yield step("interactions", "reviews", record["rows_in"], "read")
        yield step("interactions", "interactions", record["rows_out"], "kept")
    for stage, what in (("items", "described"), ("images", "usable")):
        if record := records.get(stage):
            yield step(stage, stage, record["rows_out"], what)
    if record := records.get("pretrain"):
        yield step("pretrain", "BEiT3", record["rows_in"], "items learned from")
    if "encode" in records and outputs.graphs:
        yield step("encode", "features", len(outputs.graphs), "sets")
    if record := records.get("graph"):
        yield step("graph", "graph", record["rows_out"], "edges")
    if record := records.get("train"):
        yield step("train", "AlignRec", record["rows_in"], "pairs learned from")
    if record := records.get("benchmark"):
        yield step("benchmark", "benchmark", sum(row.seeds for c in outputs.compared for row in c.rows), "runs")


def _lasted(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def picture(outputs: Outputs) -> Intervals | None:
    """Return AlignRec's lead over its rivals, or else what a probe found; None where nothing was judged."""
    for comparison in outputs.compared[:1]:
        if lead := judged.leads(comparison, outputs, ""):
            smallest = sorted(lead.rows, key=lambda row: row.spans[0][1] if row.spans[0] else 0.0)[:ROWS]
            return replace(lead, rows=[row for row in lead.rows if row in smallest])
    drawn = next((found for found in probed.pictures(outputs.probes) if found), None)
    return drawn and replace(drawn, rows=drawn.rows[:ROWS])
