"""Figures of publications (published.json), with sources and differences in protocol."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline import io

FILE = Path(__file__).with_suffix(".json")


class Figure(NamedTuple):
    """Published figures of one model on one dataset."""

    dataset: str
    model: str
    source: str  # a citation
    cells: dict[str, float]  # measure such as recall@20 -> figure


@cache
def read_published() -> dict[str, Any]:
    """Return sources, differences, sizes, left_out (reasons of omission), and fingerprints where the split is known."""
    return dict(io.read_json(FILE))


def published_figures() -> list[Figure]:
    found, sources = [], read_published()["sources"]
    for row in read_published()["figures"]:
        cells = {measure: value for measure, value in row.items() if "@" in measure}
        found.append(Figure(row["dataset"], row["model"], sources[row["source"]], cells))
    return found
