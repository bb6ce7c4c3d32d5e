"""Pictures of figures: curves as SVG, intervals and shares as rows. All take their colours from the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pipeline.evaluation.evidence import Cell

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 24
NOT_CURVES = {"epoch", "step", "lr", "seconds"}
PARTS = {"train", "valid", "test", "held", "out", "rare"}
"""words of a curve's name that do not change its measure"""
Span = tuple[float, float, float]
"""low end, middle, high end"""


@dataclass(frozen=True)
class Chart:
    """One small plot: its lines, and where its axes have marks."""

    shape: ClassVar[str] = "chart"
    title: str
    lines: list[dict[str, Any]]
    """name, points (SVG), last value (empty for means), band (SVG, mean ± sd; or empty), flat (all values equal)"""
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]


class Row(NamedTuple):
    """A row of a picture of intervals."""

    name: str
    spans: Sequence[Span | None]
    """one for each key of the picture"""
    figure: str
    """in words, at the end of the row"""
    sure: bool = True
    """whether its marks are filled"""


@dataclass(frozen=True)
class Intervals:
    """Intervals on one scale, in percent of its width; a row a run, or a group."""

    shape: ClassVar[str] = "intervals"
    title: str
    keys: Sequence[str]
    """what the marks of a row are, top to bottom; empty where there is one"""
    rows: list[Row]
    marks: list[tuple[float, str]]
    """ticks of the scale"""
    lines: list[float]
    """vertical lines: zero, and the reference if there is one"""


@dataclass(frozen=True)
class Shares:
    """Parts of a whole, a bar a row."""

    shape: ClassVar[str] = "shares"
    title: str
    keys: Sequence[str]
    """names of the parts, left to right"""
    rows: list[tuple[str, Sequence[float]]]
    """name, and the share of each part, 0 .. 1"""


Picture = Chart | Intervals | Shares


def intervals(
    title: str, rows: Sequence[Row], keys: Sequence[str] = (), reference: float | None = None
) -> Intervals | None:
    """Return intervals on a common scale that holds zero; None where there is none at all.

    Args:
        title: what is measured, of how many seeds, and what the intervals are.
        rows: their spans in units of the measure.
        keys: what the spans of a row are.
        reference: a value that all rows are seen against, such as chance.
    """
    known = [v for row in rows for span in row.spans if span is not None for v in span]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known, reference or 0.0)

    def at(v: float) -> float:
        return round(100 * (v - low) / ((high - low) or 1.0), 2)

    placed = [
        row._replace(spans=[None if s is None else (at(s[0]), at(s[1]), at(s[2])) for s in row.spans]) for row in rows
    ]
    lines = [at(v) for v in (0.0, reference) if v is not None]
    return Intervals(title, keys, placed, [(at(v), f"{v:.4g}") for v in ticks(low, high)], lines)


def around(cell: Cell | None) -> Span | None:
    """Return mean ± sd of a figure; the mean alone where one seed was run."""
    return None if cell is None else (cell.mean - (cell.sd or 0.0), cell.mean, cell.mean + (cell.sd or 0.0))


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
        {"name": name, "points": " ".join(at(x, mean) for x, mean, _ in line), "last": "", "flat": False,
         "band": " ".join([*(at(x, mean + sd) for x, mean, sd in line),
                           *(at(x, mean - sd) for x, mean, sd in reversed(line))]) if any(s for *_, s in line) else ""}
        for name, line in ends.items()
    ]  # fmt: skip
    marks = [(float(at(x, low).split(",")[0]), text) for x, text in places.items()]
    return Chart(title, drawn, marks, [(float(at(first, v).split(",")[1]), f"{v:.4g}") for v in ticks(low, high)])


def charts(history: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return a small chart for each measure in a training curve.

    Parts of one measure (train_, valid_) share a chart, and what chance would reach is a line in that of the accuracy.

    Args:
        history: one object an epoch; what is not a finite number is left out.
    """
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(k for row in history for k in row):
        if key not in NOT_CURVES and any(_is_number(row.get(key)) for row in history):
            groups.setdefault(_measure(key), []).append(key)
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


def _measure(key: str) -> str:
    words = [word for word in key.split("_") if word not in PARTS]
    return "_".join("accuracy" if word == "chance" else word for word in words) or key


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
            "flat": len({v for _, v in points}) == 1,
        }
        for key, points in series.items()
    ]
    y_marks = [(y(v), f"{v:.4g}") for v in ticks(low, high)]
    return Chart(measure, lines, [(x(i), f"{i:g}") for i in ticks(0, last) if i == int(i)], y_marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
