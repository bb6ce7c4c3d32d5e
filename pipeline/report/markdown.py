"""Figures as text, and tables in Markdown, for the dataset card and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.evidence import Cell


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


def masked_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the mask-modality probe's rows: feature set, which items, test Recall@20, change against the whole."""
    rows = []
    for name, variants in found.items():
        for variant, v in variants.items():
            metric = next(k for k in v if "@" in k and not k.endswith("_sd"))
            change = "" if "relative_change" not in v else f"{v['relative_change']:+.1%}"
            spread = "" if "relative_change_sd" not in v else f" ± {v['relative_change_sd']:.1%}"
            recall = f"{v[metric]:.4f}" + (f" ± {v[metric + '_sd']:.4f}" if f"{metric}_sd" in v else "")
            rows.append([name, variant, recall, change + spread])
    return rows


def escaped(text: str) -> str:
    """Return text that shows as itself inside a table cell."""
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
