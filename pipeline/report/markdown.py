"""Figures as text, and tables in Markdown, for the dataset card and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.evidence import Cell

VERDICTS = {"better": "better than", "worse": "worse than", "undecided": "neither better nor worse than"}
"""verdict of a feature set on others -> in words"""


def row(*cells: object) -> str:
    """Return one table row; Markdown and HTML in cells are escaped."""
    return "| " + " | ".join(escaped(str(c)) for c in cells) + " |"


def rule(columns: int) -> str:
    """Return the line under a table's heading."""
    return "|" + "---|" * columns


def figure(cell: Cell | None, form: str = ".4f") -> str:
    """Return mean ± sd, or nothing."""
    return "" if cell is None else with_error(cell.mean, cell.sd, form)


def with_error(value: float, error: float | None, form: str = ".4f") -> str:
    """Return value ± error, or the value alone where the error is not known; only the value may show a plus sign."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.removeprefix('+')}}")


def probe_remark(probe: Mapping[str, Any]) -> str:
    """Return the caveat of a probe's figures, and which feature sets have none and why; mostly nothing."""
    reasons: dict[str, list[str]] = {}
    for name, figures in probe.items():
        if isinstance(figures, dict) and "skipped" in figures:
            reasons.setdefault(figures["skipped"], []).append(name)
    remarks = [f"Not shown for {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return " ".join([*([probe["note"]] if probe.get("note") else []), *remarks])


def verdict_sentences(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts of one probe as sentences, one a measure and first feature set; nothing without verdicts."""
    others: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in verdicts:
        others.setdefault((row["measure"], row["a"]), {}).setdefault(row["verdict"], []).append(row["b"])
    sentences = []
    for (measure, a), by_verdict in others.items():
        clauses = [f"{words} {listed(by_verdict[v])}" for v, words in VERDICTS.items() if v in by_verdict]
        sentences.append(f"At {measure}, {a} is {'; '.join(clauses)}.")
    return " ".join(sentences)


def escaped(text: str) -> str:
    """Return text with Markdown and HTML escaped, for a table cell."""
    text = " ".join(text.split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
