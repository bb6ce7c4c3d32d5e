"""Figures that others published, each stored once, in published.json: with its source, and what sets them apart."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline import io

FILE = Path(__file__).with_suffix(".json")


class Figure(NamedTuple):
    """Published figures of one model on one data set."""

    dataset: str
    model: str
    source: str  # where it was read, in words
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
    """Return what is not comparable about them, a sentence each."""
    return list(io.read_json(FILE)["differences"])


def sizes() -> dict[str, tuple[int, int, int]]:
    return {name: tuple(counts) for name, counts in io.read_json(FILE)["sizes"].items()}


def left_out() -> list[str]:
    """Return which published figures are not here, and why, a sentence each."""
    return list(io.read_json(FILE)["left_out"])


def fingerprints() -> dict[str, str]:
    """Return fingerprint of a protocol -> the data set whose published figures are of that protocol and split.

    Each was computed from the published split; of a data set whose split was not at hand there is none.
    """
    return dict(io.read_json(FILE)["fingerprints"])
