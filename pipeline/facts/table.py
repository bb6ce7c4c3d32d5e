"""A table of text, the same on the page, in Markdown and on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.facts.words import after


@dataclass(frozen=True)
class Table:
    """A table of text. Cells come from data and are not escaped yet."""

    heading: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    """columns from the left that hold words; the others hold figures, aligned right"""
    best: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of highlighted figures: the best of a column, or significant ones"""
    heat: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """(row, column) -> 0 .. 1, strength of the cell's tint"""

    def under(self, label: str) -> Table:
        return replace(self, heading=after(self.heading, label, ", "))

    @property
    def markdown(self) -> str:
        return markdown(self.head, self.rows)


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; Markdown and HTML in cells are escaped."""
    lines = ["| " + " | ".join(escaped(str(cell)) for cell in cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def escaped(text: str) -> str:
    """Return text with Markdown and HTML escaped, for a table cell."""
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
