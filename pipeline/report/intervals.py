"""Charts of intervals, their marks in percent of a common axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TICKS = 4  # intervals between marks of an axis, at most
STEPS = (1, 2, 5, 10)  # of an axis, times a power of ten
Span = tuple[float, float, float]  # low end, centre, high end


class IntervalRow(NamedTuple):
    """A row of an interval chart, with a span per key."""

    name: str
    spans: Sequence[Span | None]  # one per key
    figure: str
    tips: Sequence[str] = ()  # tooltip of each span


@dataclass(frozen=True)
class Intervals:
    """An interval chart, with a row per run or set; positions are percent of its width."""

    title: str
    keys: Sequence[str]  # names of a row's marks, top to bottom; empty for one
    rows: list[IntervalRow]
    marks: list[tuple[float, str]]
    lines: list[float]  # vertical lines: zero and perhaps the reference
    axis: str


def interval_chart(
    title: str,
    rows: Sequence[IntervalRow],
    keys: Sequence[str] = (),
    reference: float | None = None,
    axis: str = "",
) -> Intervals | None:
    """Scale intervals to percent of a range that includes zero and `reference`, such as chance.

    None without spans.
    """
    ends: list[float] = []
    for row in rows:
        for span in row.spans:
            ends += span or ()
    if not ends:
        return None

    low = min(0.0, *ends)
    high = max(0.0, *ends, reference or 0.0)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    placed = []
    for row in rows:
        labels = [f"{row.name}, {key}" for key in keys] or [row.name]
        tips = [_describe_span(*pair) for pair in zip(labels, row.spans, strict=True)]
        spans = [span and (place(span[0]), place(span[1]), place(span[2])) for span in row.spans]
        placed.append(row._replace(spans=spans, tips=tips))

    marks = [(place(tick), f"{tick:.4g}") for tick in axis_ticks(low, high)]
    lines = [place(0.0)]
    if reference is not None:
        lines.append(place(reference))
    return Intervals(title, keys, placed, marks, lines, axis)


def _describe_span(label: str, span: Span | None) -> str:
    if span is None:
        return ""
    low, centre, high = span
    ends = f", {low:.4g} to {high:.4g}" if low < high else ""
    return f"{label}: {centre:.4g}{ends}"


def axis_ticks(low: float, high: float) -> list[float]:
    if not high > low:
        return [low]
    finest = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(finest))
    step = next(factor * power for factor in STEPS if factor * power >= finest)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]
