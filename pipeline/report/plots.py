"""Charts of figures: curves as SVG, intervals as rows; and sections of charts and tables."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pipeline.evaluation.evidence import Cell
from pipeline.report.table import Difference, Table
from pipeline.report.words import figure

WIDTH, HEIGHT = 300, 176
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 20, 36
NOT_CURVES = {"epoch", "step", "lr", "seconds"}
PARTS = {"train", "valid", "test", "held", "out", "rare"}
"""words of a curve's name other than its measure"""
Span = tuple[float, float, float]
"""low end, middle, high end"""
Point = tuple[float, float, float]
"""x, value, standard deviation"""


@dataclass(frozen=True)
class Chart:
    """A small plot of lines."""

    shape: ClassVar[str] = "chart"
    title: str
    lines: list[dict[str, Any]]
    """name, points (SVG), dots (x, y, words), last value or "", band (SVG, mean ± sd) or "", flat (all values equal)"""
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]
    x_name: str
    y_name: str


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

    shape: ClassVar[str] = "intervals"
    title: str
    keys: Sequence[str]
    """names of a row's marks, top to bottom; empty for one"""
    rows: list[Row]
    marks: list[tuple[float, str]]
    lines: list[float]
    """vertical lines: zero and perhaps the reference"""
    axis: str


Picture = Chart | Intervals


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in the navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    drawn: Sequence[Picture | None] = ()
    maps: Sequence[Table] = ()
    """heat maps"""
    tables: Sequence[Table] = ()
    """folded on the page"""

    @property
    def pictures(self) -> list[Picture]:
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
            spans=[None if s is None else (at(s[0]), at(s[1]), at(s[2])) for s in row.spans],
            tips=["" if s is None else _tip(row.name, s, keys[i] if keys else "") for i, s in enumerate(row.spans)],
        )
        for row in rows
    ]
    lines = [at(v) for v in (0.0, reference) if v is not None]
    return Intervals(title, keys, placed, [(at(v), f"{v:.4g}") for v in ticks(low, high)], lines, axis)


def _tip(name: str, span: Span, key: str) -> str:
    ends = f", {span[0]:.4g} to {span[2]:.4g}" if span[0] < span[2] else ""
    return f"{name}{f', {key}' if key else ''}: {span[1]:.4g}{ends}"


def mean(name: str, cell: Cell) -> Row:
    """Return a row of mean ± sd."""
    sd = cell.sd or 0.0
    return Row(name, [(cell.mean - sd, cell.mean, cell.mean + sd)], figure(cell))


def change(name: str, test: Difference | None, words: str | None = None) -> Row:
    """Return a row of a difference, filled where significant; without a mark for None."""
    if test is None:
        return Row(name, [None], words or "", False)
    return Row(name, [test[:3]], test.words if words is None else words, test.sure)


def curves(title: str, places: Mapping[float, str] | Collection[float],
           lines: Mapping[str, Mapping[float, Cell]], axes: tuple[str, str] = ("", "")) -> Chart:  # fmt: skip
    """Return a chart of means with a band of one standard deviation.

    Args:
        places: x -> its mark on the axis, or x; at least two.
        lines: line -> x -> figure.
    """
    places = places if isinstance(places, Mapping) else {x: f"{x:.4g}" for x in sorted(places)}
    ends = {name: [(x, c.mean, c.sd or 0.0) for x, c in sorted(line.items())] for name, line in lines.items()}
    return _chart(title, ends, places, (min(places), max(places)), axes)


def charts(history: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return a small chart per measure of a training curve; train_, valid_ and chance of one measure share a chart.

    Args:
        history: a mapping per epoch; values that are not finite numbers are left out.
    """
    groups: dict[str, dict[str, list[Point]]] = {}
    for key in dict.fromkeys(k for row in history for k in row):
        points = [(float(i), float(row[key]), 0.0) for i, row in enumerate(history) if _is_number(row.get(key))]
        if points and key not in NOT_CURVES:
            groups.setdefault(_measure(key), {})[key] = points
    end = max(len(history) - 1, 1)
    places = {x: f"{x:g}" for x in ticks(0, end) if x == int(x)}
    return [
        _chart(measure, lines, places, (0, end), ("measurement", measure.replace("_", " ")), last=True)
        for measure, lines in groups.items()
    ]


def _chart(title: str, lines: Mapping[str, list[Point]], places: Mapping[float, str], axis: tuple[float, float],
           axes: tuple[str, str], last: bool = False) -> Chart:  # fmt: skip
    """Return a chart; `places` are marks and `axis` the ends of the horizontal axis, `last` shows last values."""
    ends = [end for line in lines.values() for _, v, sd in line for end in (v - sd, v + sd)]
    low, high = min(ends), max(ends)
    if high == low:
        low, high = low - 0.5, high + 0.5

    def across(x: float) -> float:
        return round(LEFT + (x - axis[0]) / (axis[1] - axis[0]) * (WIDTH - LEFT - RIGHT), 1)

    def down(v: float) -> float:
        return round(TOP + (high - v) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def along(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{across(x)},{down(v)}" for x, v in points)

    drawn = [
        {"name": name, "points": along((x, v) for x, v, _ in line),
         "dots": [(across(x), down(v), f"{name}: {v:.4g} at {axes[0]} {places.get(x, f'{x:g}')}".replace("  ", " "))
                  for x, v, _ in line], "last": f"{line[-1][1]:.4g}" if last else "",
         "flat": last and len({v for _, v, _ in line}) == 1,
         "band": along([*((x, v + sd) for x, v, sd in line), *((x, v - sd) for x, v, sd in reversed(line))])
         if any(sd for *_, sd in line) else ""}
        for name, line in lines.items()
    ]  # fmt: skip
    marks = [(across(x), text) for x, text in places.items()]
    return Chart(title, drawn, marks, [(down(v), f"{v:.4g}") for v in ticks(low, high)], *axes)


def ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers from low to high."""
    if not high > low:
        return [low]
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _measure(key: str) -> str:
    words = [word for word in key.split("_") if word not in PARTS]
    return "_".join("accuracy" if word == "chance" else word for word in words) or key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
