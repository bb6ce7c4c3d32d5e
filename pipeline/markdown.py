"""Tables in Markdown, for the dataset card and report.md."""

from __future__ import annotations

from pipeline.evidence import Cell


def row(*cells: object) -> str:
    """Return one table row; what would end a cell or begin HTML in it is escaped, so that data stays data."""
    return "| " + " | ".join(escaped(str(c)) for c in cells) + " |"


def rule(columns: int) -> str:
    """Return the line under a table's heading."""
    return "|" + "---|" * columns


def figure(cell: Cell | None) -> str:
    """Return mean ± sd with four decimals, or nothing."""
    if cell is None:
        return ""
    return f"{cell.mean:.4f}" + ("" if cell.sd is None else f" ± {cell.sd:.4f}")


def escaped(text: str) -> str:
    """Return text that shows as itself inside a table cell."""
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
