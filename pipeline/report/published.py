"""Published figures, in published.json, with their sources and differences."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline import io

FILE = Path(__file__).with_suffix(".json")


class Figure(NamedTuple):
    """Published figures of one model on one data set."""

    dataset: str
    model: str
    source: str  # a citation
    cells: dict[str, float]  # measure, such as recall@20 -> figure


@cache
def read_published() -> dict[str, Any]:
    """Return the file: sources, differences, sizes, left_out (a sentence per omitted publication) and fingerprints.

    A fingerprint of protocol and split is that of the data set of its published figures, where the split is known.
    """
    return dict(io.read_json(FILE))


def published_figures() -> list[Figure]:
    found, sources = [], read_published()["sources"]
    for row in read_published()["figures"]:
        cells = {measure: value for measure, value in row.items() if "@" in measure}
        found.append(Figure(row["dataset"], row["model"], sources[row["source"]], cells))
    return found
