"""What valid chose a feature set from: the candidates of kind `chosen`, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.facts.table import Table

FIGURES = ("warm", "cold", "score")


def tables(probes: Mapping[str, Any] | None) -> list[Table]:
    """Return a table for each set that valid chose, of the content of probes.json."""
    return [table(name, rows) for name, rows in (probes or {}).get("tried", {}).items()]


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the candidates of a set, rows of schema TRIED, best first."""
    note = (
        f"{len(rows)} candidates were tried on valid, and the best was kept, so its figures here are somewhat too "
        "high: its figures on test are among the probes. Warm: Recall@20 of content neighbours among all items. Cold: "
        "among cold items alone, maps fitted without their interactions. Score: the root of warm times cold."
    )
    ranked = sorted(rows, key=lambda row: (-row["score"], row["number"]))
    cells = [
        [
            *(", ".join(row["of"]), f"{row['power']:g}", f"{row['image']:g}", row["map"]),
            *(f"{row[figure]:.4f}" for figure in FIGURES),
        ]
        for row in ranked
    ]
    head = ["made of", "power", "image", "map", *FIGURES]
    return Table(f"What {name} was chosen from", note, head, cells, texts=4, best=frozenset({(0, len(head) - 1)}))
