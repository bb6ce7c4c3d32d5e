"""Semantic IDs as a section: how good the codes are."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.evidence import Cell
from pipeline.facts import codes
from pipeline.facts.codes import Judged
from pipeline.report import plots
from pipeline.report.plots import Chart
from pipeline.report.section import Section

LINES = 3
"""methods of a chart, beside chance: there are four colours"""
TITLES = {
    "neighbours": "neighbours that share the first 1, 2, ... codes",
    "co_purchase": "items bought together that share them",
    "category": "of items that share them, those of one category",
}
"""key of a prefix's figures -> its chart"""


def section(judged: Sequence[Judged]) -> Section:
    """Return the section of semantic IDs."""
    note = "Items as a few discrete codes, from coarse to fine, judged without training a generator."
    return Section("semantic-ids", codes.HEADING, codes.HEADING, note, shared(judged), tables=codes.tables(judged))


def shared(judged: Sequence[Judged]) -> list[Chart]:
    """Return for each feature set how often pairs of items share a prefix, by its length, beside chance."""
    drawn = []
    for features in dict.fromkeys(j.features for j in judged):
        rows = [j for j in judged if j.features == features and not j.quality["control"]][:LINES]
        for key, what in TITLES.items():
            lines = {j.method: _line([p[key] for p in j.quality["prefixes"]]) for j in rows}
            by_chance = ([p[f"{key}_chance"] or 0.0 for p in j.quality["prefixes"]] for j in rows)
            lines["chance"] = _line([max(values) for values in zip(*by_chance, strict=True)])
            places = {length: f"{length:.0f}" for length in lines["chance"]}
            if len(places) > 1 and all(lines.values()):
                axes = ("codes that are shared", "share of pairs" if key != "category" else "share of items")
                drawn.append(plots.curves(f"{features}: {what}", places, lines, axes))
    return drawn


def _line(values: Sequence[float | None]) -> dict[float, Cell]:
    """Return length of the prefix -> figure, where there is one."""
    return {float(n): Cell(v, None, (v,)) for n, v in enumerate(values, start=1) if v is not None}
