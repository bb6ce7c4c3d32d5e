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

CONTROLS = ("random", "shuffled", "constant")  # feature sets that a useful one must beat
DRAWS = re.compile(
    r" in (\d+) draws"
)  # part of a protocol's name, see pipeline/evaluation/protocol.py
METRICS = {"recall": "Recall", "ndcg": "NDCG"}
BEST, BETTER, SAME, WORSE = "best", "better", "level", "worse"  # marks of cells
CHANGE = ("change", "95 % interval", "p")  # columns of a paired test
FLOORED = f"≤ marks a p that could not be smaller with {RESAMPLES:,} resamples."
Place = tuple[int, int]  # row, column
Fields = Mapping[str, Any]  # of a row of a table, or of a JSON object


def format_figure(cell: Figure | None, form: str = ".4f") -> str:
    if cell is None:
        return ""
    # models without randomness give the same value for all seeds
    return with_error(cell.mean, cell.sd if len({*cell.values}) != 1 else None, form)


def with_error(value: float, error: float | None, form: str = ".4f") -> str:
    """Format value ± error with the same format; a plus sign in it applies to the value only."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.removeprefix('+')}}")


def without_zero(text: str) -> str:
    return re.sub(r"\b0\.", ".", text)


def describe_seeds(counts: Iterable[int]) -> str:
    over = seeds_of(counts)
    return over if over == "1 seed" else f"mean ± sd over {over}"


def measure_name(metric: str, k: int) -> str:
    return f"{METRICS.get(metric, metric)}@{k}"


RECALL = measure_name(*MAIN)


def run_name(model: str, features: str, ablation: str = "") -> str:
    content = "" if features == "none" else f" on {features}"
    class_name = MODELS.built_in.get(model, "").partition(":")[2]  # avoids importing the model
    named = TITLES.get(model) or class_name or model
    return f"{named}{content}" + (f", {ablation}" if ablation else "")


def protocol_note(row: Mapping[str, Any]) -> str:
    drawn = DRAWS.search(row["protocol"])
    over = (
        f" Runs take the {drawn[1]} draws in turn; deviations and intervals are over draws too."
        if drawn
        else ""
    )
    return f"Protocol {row['protocol']}, fingerprint {row['fingerprint']}.{over}"


def join_label(text: str, label: str, mark: str = "; ") -> str:
    return f"{text}{mark}{label}" if label else text


def with_labels(comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, str]]:
    for comparison in comparisons:
        yield comparison, comparison.protocol if len(comparisons) > 1 else ""


class Difference(NamedTuple):
    """A paired test of two means: their difference, its 95 % interval, and p."""

    low: float
    middle: float
    high: float
    p: float
    p_holm: float | None  # corrected for all tests of its table; None if uncorrected

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Difference:
        return cls(*(row[key] for key in ("low", "difference", "high", "p", "p_holm")))

    @property
    def sure(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def mark(self) -> str:
        return SAME if not self.sure else BETTER if self.middle > 0 else WORSE

    @property
    def cells(self) -> list[str]:
        interval = f"{self.low:+.4f} .. {self.high:+.4f}"
        return [f"{self.middle:+.4f}", interval, p_value(self.p, self.p_holm)]

    @property
    def words(self) -> str:
        change, _, p = self.cells
        return f"{change}, p {p}"


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
    marks: Mapping[Place, str] = field(
        default_factory=dict
    )  # cell -> best of its column, or the outcome of its test

    @classmethod
    def of(
        cls, heading: str, note: str, head: Sequence[str], rows: Iterable[Sequence[Value]], texts: int = 1,
        best: Iterable[int] = (), unranked: str = "",
    ) -> Table:  # fmt: skip
        """Format values; mark significant tests, and the highest mean of each `best` column but `unranked`'s."""
        cells: list[list[str]] = []
        marks: dict[Place, str] = {}
        rows = list(rows)
        for values in rows:
            cells.append([])
            for value in values:
                if isinstance(value, Difference) and value.sure:
                    marks[len(cells) - 1, len(cells[-1])] = value.mark
                if isinstance(value, Figure):
                    cells[-1].append(format_figure(value))
                elif isinstance(value, Difference):
                    cells[-1] += value.cells
                else:
                    cells[-1] += [""] * len(CHANGE) if value is None else [value]
        for column in best if rows else ():
            judged = [values[column] if unranked not in values else None for values in rows]
            means = [value.mean if isinstance(value, Figure) else -inf for value in judged]
            marks[means.index(max(means)), column] = BEST
        return cls(heading, note, head, cells, texts, marks)

    def under(self, label: str) -> Table:
        return replace(self, heading=join_label(self.heading, label, ", "))

    @property
    def markdown(self) -> str:
        return markdown(self.head, self.rows)


def p_value(p: float, corrected: float | None = None) -> str:
    """Format p or the corrected one, with ≤ if p is the smallest possible."""
    return ("≤ " if p <= FLOOR else "") + f"{p if corrected is None else corrected:.2g}"


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        "| " + " | ".join(escape_markdown(str(cell)) for cell in cells) + " |"
        for cells in (head, *rows)
    ]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def escape_markdown(text: str) -> str:
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
