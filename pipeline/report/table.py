"""Tables for pages, Markdown and terminals, and the formatting of their cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, NamedTuple

from alignrec.pipeline.evaluation.evidence import MAIN, Comparison, Figure, seeds_of
from alignrec.pipeline.evaluation.statistics import FLOOR, LEVEL, RESAMPLES
from alignrec.pipeline.models import MODELS, TITLES

DRAWS = re.compile(r" in (\d+) draws")  # part of a protocol's name, see evaluation/protocol.py
METRIC_TITLES = {"recall": "Recall", "ndcg": "NDCG"}
# marks of cells
BEST = "best"
BETTER = "better"
SAME = "level"
WORSE = "worse"
CHANGE = ("change", "95 % interval", "p")  # columns of a paired test
FLOORED = f"≤ marks a p that could not be smaller with {RESAMPLES:,} resamples."
Place = tuple[int, int]  # row, column
Fields = Mapping[str, Any]  # of a row of a table, or of a JSON object


def format_figure(figure: Figure | None, number_format: str = ".4f") -> str:
    if figure is None:
        return ""
    # models without randomness give the same value for all seeds
    sd = None if len(set(figure.values)) == 1 else figure.sd
    return with_error(figure.mean, sd, number_format)


def with_error(value: float, error: float | None, number_format: str = ".4f") -> str:
    """Format value ± error alike; a plus sign in the format applies to the value only."""
    formatted = f"{value:{number_format}}"
    if error is None:
        return formatted
    return f"{formatted} ± {error:{number_format.removeprefix('+')}}"


def without_zero(text: str) -> str:
    return re.sub(r"\b0\.", ".", text)


def describe_seeds(counts: Iterable[int]) -> str:
    over = seeds_of(counts)
    return over if over == "1 seed" else f"mean ± sd over {over}"


def measure_name(metric: str, k: int) -> str:
    return f"{METRIC_TITLES.get(metric, metric)}@{k}"


HEADLINE_RECALL = measure_name(*MAIN)


def run_name(model: str, features: str, ablation: str = "") -> str:
    class_name = MODELS.built_in.get(model, "").partition(":")[2]  # avoids importing the model
    name = TITLES.get(model) or class_name or model
    if features != "none":
        name += f" on {features}"
    return f"{name}, {ablation}" if ablation else name


def protocol_note(row: Fields) -> str:
    note = f"Protocol {row['protocol']}, fingerprint {row['fingerprint']}."
    draws = DRAWS.search(row["protocol"])
    if draws:
        note += (
            f" Runs take the {draws[1]} draws in turn; deviations and intervals are over draws too."
        )
    return note


def join_label(text: str, label: str, mark: str = "; ") -> str:
    return f"{text}{mark}{label}" if label else text


def with_labels(comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, str]]:
    """Yield comparisons with their protocol, which need not be named if there is only one."""
    for comparison in comparisons:
        label = comparison.protocol if len(comparisons) > 1 else ""
        yield comparison, label


class Difference(NamedTuple):
    """A paired test of two means: their difference, its 95 % interval, and p."""

    low: float
    middle: float
    high: float
    p: float
    p_holm: float | None  # corrected for all tests of its table; None if uncorrected

    @classmethod
    def of(cls, row: Fields) -> Difference:
        return cls(row["low"], row["difference"], row["high"], row["p"], row["p_holm"])

    @property
    def sure(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def mark(self) -> str:
        if not self.sure:
            return SAME
        return BETTER if self.middle > 0 else WORSE

    @property
    def cells(self) -> list[str]:
        interval = f"{self.low:+.4f} .. {self.high:+.4f}"
        return [f"{self.middle:+.4f}", interval, p_value(self.p, self.p_holm)]


# text, mean ± sd, or the three columns of a paired test, which None leaves empty
Value = str | Figure | Difference | None


@dataclass(frozen=True)
class Table:
    """A table of text, whose cells are not escaped yet."""

    heading: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1  # number of leading text columns; the others are figures, right-aligned
    # cell -> best of its column, or the outcome of its test
    marks: Mapping[Place, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        heading: str,
        note: str,
        head: Sequence[str],
        rows: Iterable[Sequence[Value]],
        texts: int = 1,
        best: Iterable[int] = (),
    ) -> Table:
        """Format values; mark significant tests and the highest mean of each `best` column."""
        rows = list(rows)
        cells: list[list[str]] = []
        marks: dict[Place, str] = {}
        for values in rows:
            row: list[str] = []
            for value in values:
                if isinstance(value, Difference) and value.sure:
                    marks[len(cells), len(row)] = value.mark
                row += _format_value(value)
            cells.append(row)

        for column in best if rows else ():
            means = [_mean_of(values[column]) for values in rows]
            marks[means.index(max(means)), column] = BEST
        return cls(heading, note, head, cells, texts, marks)

    def under(self, label: str) -> Table:
        return replace(self, heading=join_label(self.heading, label, ", "))

    @property
    def markdown(self) -> str:
        return markdown(self.head, self.rows)


def _format_value(value: Value) -> list[str]:
    """Return the cells of a value."""
    if value is None:
        return [""] * len(CHANGE)
    if isinstance(value, Difference):
        return value.cells
    return [format_figure(value) if isinstance(value, Figure) else value]


def _mean_of(value: Value) -> float:
    return value.mean if isinstance(value, Figure) else -inf


def p_value(p: float, corrected: float | None = None) -> str:
    """Format p or the corrected one, with ≤ if p is the smallest possible."""
    sign = "≤ " if p <= FLOOR else ""
    return f"{sign}{p if corrected is None else corrected:.2g}"


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = []
    for cells in (head, *rows):
        escaped = " | ".join(escape_markdown(str(cell)) for cell in cells)
        lines.append(f"| {escaped} |")
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
