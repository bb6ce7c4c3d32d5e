"""Curves and intervals as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.evidence import Cell

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 24
BAR, BAR_MARGIN = 160, 6
"""pixels of an interval's cell"""
NOT_CURVES = {"epoch", "step", "lr", "seconds"}
PARTS = ("train_", "valid_", "held_out_", "test_")


@dataclass(frozen=True)
class Chart:
    """One small plot: its lines, and where its axes have marks."""

    title: str
    lines: list[dict[str, Any]]
    """name, points (SVG), last value (empty for charts over places), band (SVG, mean ± sd; empty without)"""
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]


@dataclass(frozen=True)
class Bars:
    """One interval a row of a table, all on one scale of 0 .. BAR."""

    zero: float
    rows: list[tuple[float, float, float] | None]
    """low end, middle, high end"""


def bars(spans: Sequence[tuple[float, float, float] | None]) -> Bars | None:
    """Return intervals (low, middle, high) on a common scale that holds zero; None where there is none at all."""
    known = [v for span in spans if span is not None for v in span]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known)
    scale = (BAR - 2 * BAR_MARGIN) / ((high - low) or 1.0)

    def x(v: float) -> float:
        return round(BAR_MARGIN + (v - low) * scale, 1)

    return Bars(x(0.0), [None if s is None else (x(s[0]), x(s[1]), x(s[2])) for s in spans])


def across(title: str, labels: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> Chart:
    """Return a chart of lines over named places; a line skips places without a value.

    Args:
        title: what is measured.
        labels: of the places, left to right; at least two.
        values: line -> a value a place; at least one of all is a number.
    """
    high = max(v for line in values.values() for v in line if v is not None) or 1.0
    xs = [round(LEFT + i / (len(labels) - 1) * (WIDTH - LEFT - RIGHT), 1) for i in range(len(labels))]

    def y(v: float) -> float:
        return round(TOP + (1 - v / high) * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        {"name": name, "points": " ".join(f"{x},{y(v)}" for x, v in zip(xs, line, strict=True) if v is not None),
         "last": "", "band": ""}
        for name, line in values.items()
    ]  # fmt: skip
    return Chart(title, lines, list(zip(xs, labels, strict=True)), [(y(v), f"{v:.4g}") for v in ticks(0, high)])


def curves(title: str, places: Mapping[float, str], lines: Mapping[str, Mapping[float, Cell]]) -> Chart:
    """Return a chart of means over numbers, each with a band of one standard deviation where seeds allow.

    Args:
        title: what is measured.
        places: x -> its mark on the axis; at least two.
        lines: line -> x -> figure.
    """
    ends = {name: [(x, c.mean, c.sd or 0.0) for x, c in sorted(line.items())] for name, line in lines.items()}
    low = min(mean - sd for line in ends.values() for _, mean, sd in line)
    high = max(mean + sd for line in ends.values() for _, mean, sd in line)
    if high == low:
        low, high = low - 0.5, high + 0.5
    first, last = min(places), max(places)

    def at(x: float, v: float) -> str:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{TOP + (high - v) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    drawn = [
        {"name": name, "points": " ".join(at(x, mean) for x, mean, _ in line), "last": "",
         "band": " ".join([*(at(x, mean + sd) for x, mean, sd in line),
                           *(at(x, mean - sd) for x, mean, sd in reversed(line))]) if any(s for *_, s in line) else ""}
        for name, line in ends.items()
    ]  # fmt: skip
    marks = [(float(at(x, low).split(",")[0]), text) for x, text in places.items()]
    return Chart(title, drawn, marks, [(float(at(first, v).split(",")[1]), f"{v:.4g}") for v in ticks(low, high)])


def charts(history: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return a small chart for each measure in a training curve; parts of one measure (train_, valid_) share a chart.

    Args:
        history: one object an epoch; what is not a finite number is left out.
    """
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(k for row in history for k in row):
        if key not in NOT_CURVES and any(_is_number(row.get(key)) for row in history):
            measure = next((key[len(p) :] for p in PARTS if key.startswith(p)), key)
            groups.setdefault(measure, []).append(key)
    return [_chart(measure, keys, history) for measure, keys in groups.items()]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers from low to high, about that many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _chart(measure: str, keys: list[str], history: Sequence[dict[str, Any]]) -> Chart:
    series = {key: [(i, float(row[key])) for i, row in enumerate(history) if _is_number(row.get(key))] for key in keys}
    values = [v for points in series.values() for _, v in points]
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5
    last = max(len(history) - 1, 1)

    def x(i: float) -> float:
        return round(LEFT + i / last * (WIDTH - LEFT - RIGHT), 1)

    def y(v: float) -> float:
        return round(TOP + (high - v) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        {
            "name": key,
            "points": " ".join(f"{x(i)},{y(v)}" for i, v in points),
            "last": f"{points[-1][1]:.4g}",
            "band": "",
        }
        for key, points in series.items()
    ]
    y_marks = [(y(v), f"{v:.4g}") for v in ticks(low, high)]
    return Chart(measure, lines, [(x(i), f"{i:g}") for i in ticks(0, last) if i == int(i)], y_marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
