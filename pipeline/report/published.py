"""Published figures, in published.json, with their sources and differences."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline import io

FILE = Path(__file__).with_suffix(".json")


class Figure(NamedTuple):
    """Published figures of one model on one data set."""

    dataset: str
    model: str
    source: str  # a citation
    cells: dict[str, float]  # measure, such as recall@20 -> figure


@cache
def figures() -> tuple[Figure, ...]:
    read = io.read_json(FILE)
    return tuple(
        Figure(
            row["dataset"], row["model"], read["sources"][row["source"]],
            {measure: value for measure, value in row.items() if "@" in measure},
        )
        for row in read["figures"]
    )  # fmt: skip


def differences() -> list[str]:
    return list(io.read_json(FILE)["differences"])


def sizes() -> dict[str, tuple[int, int, int]]:
    return {name: tuple(counts) for name, counts in io.read_json(FILE)["sizes"].items()}


def left_out() -> list[str]:
    """Return a sentence per omitted publication, with its reason."""
    return list(io.read_json(FILE)["left_out"])


def fingerprints() -> dict[str, str]:
    """Return fingerprint of protocol and split -> data set of its published figures, where the split is known."""
    return dict(io.read_json(FILE)["fingerprints"])
