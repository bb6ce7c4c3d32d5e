"""Intervals as rows, and sections of them and of tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.evaluation.evidence import Cell
from pipeline.report.table import Difference, Table
from pipeline.report.words import figure

Span = tuple[float, float, float]
"""low end, middle, high end"""


class Row(NamedTuple):
    """A row of intervals."""

    name: str
    spans: Sequence[Span | None]
    """one per key"""
    figure: str
    sure: bool = True
    """whether its marks are filled"""
    tips: Sequence[str] = ()
    """tooltip of each span"""


@dataclass(frozen=True)
class Intervals:
    """Intervals on one scale, in percent of its width; a row per run or group."""

    title: str
    keys: Sequence[str]
    """names of a row's marks, top to bottom; empty for one"""
    rows: list[Row]
    marks: list[tuple[float, str]]
    lines: list[float]
    """vertical lines: zero and perhaps the reference"""
    axis: str


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in the navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    drawn: Sequence[Intervals | None] = ()
    maps: Sequence[Table] = ()
    """heat maps"""
    tables: Sequence[Table] = ()
    """folded on the page"""

    @property
    def pictures(self) -> list[Intervals]:
        return [picture for picture in self.drawn if picture is not None]

    def __bool__(self) -> bool:
        return bool(self.pictures or self.maps or self.tables)


def intervals(
    title: str, rows: Sequence[Row], keys: Sequence[str] = (), reference: float | None = None, axis: str = ""
) -> Intervals | None:
    """Return intervals on a common scale that includes zero; None without any span.

    Args:
        rows: spans in units of the measure.
        reference: value to compare rows with, such as chance.
    """
    known = [v for row in rows for span in row.spans if span is not None for v in span]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known, reference or 0.0)

    def at(v: float) -> float:
        return round(100 * (v - low) / ((high - low) or 1.0), 2)

    placed = [
        row._replace(
            spans=[s and (at(s[0]), at(s[1]), at(s[2])) for s in row.spans],
            tips=[_tip(row.name, s, keys[i] if keys else "") for i, s in enumerate(row.spans)],
        )
        for row in rows
    ]
    lines = [at(v) for v in (0.0, reference) if v is not None]
    return Intervals(title, keys, placed, [(at(v), f"{v:.4g}") for v in ticks(low, high)], lines, axis)


def _tip(name: str, span: Span | None, key: str) -> str:
    if span is None:
        return ""
    ends = f", {span[0]:.4g} to {span[2]:.4g}" if span[0] < span[2] else ""
    return f"{name}{f', {key}' if key else ''}: {span[1]:.4g}{ends}"


def mean(name: str, cell: Cell) -> Row:
    """Return a row of mean ± sd."""
    sd = cell.sd or 0.0
    return Row(name, [(cell.mean - sd, cell.mean, cell.mean + sd)], figure(cell))


def change(name: str, test: Difference | None, words: str) -> Row:
    """Return a row of a difference, filled where significant; without a mark for None."""
    return Row(name, [test and test[:3]], words, test is not None and test.sure)


def ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers from low to high."""
    if not high > low:
        return [low]
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
