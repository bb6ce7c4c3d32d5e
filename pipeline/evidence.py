"""The figures behind the report and the dataset card: seeds to mean and sd, statuses to counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HEADLINE = (("recall", 10), ("recall", 20), ("ndcg", 10), ("ndcg", 20))
KEYS = ("model", "features", "protocol", "split", "selected_by", "metric", "k")


@dataclass(frozen=True)
class Cell:
    """One measured figure."""

    mean: float
    sd: float | None
    """over seeds, n - 1 in the denominator; None for one seed"""
    values: tuple[float, ...]
    """by seed"""


@dataclass(frozen=True)
class Row:
    """One model on one feature set under one protocol, judged on test at the best valid epoch."""

    model: str
    features: str
    protocol: str
    cells: dict[tuple[str, int], Cell]
    """(metric, k) -> figure"""

    @property
    def seeds(self) -> int:
        """Runs behind the figures."""
        return max((len(c.values) for c in self.cells.values()), default=0)


def figures(results: pa.Table) -> dict[tuple[Any, ...], Cell]:
    """Return a cell for each (model, features, protocol, split, selected_by, metric, k) of table RESULTS, sorted."""
    ordered = results.sort_by([(k, "ascending") for k in (*KEYS, "seed")])
    values: dict[tuple[Any, ...], list[float]] = {}
    for row in ordered.select([*KEYS, "value"]).to_pylist():  # a few thousand rows at most
        values.setdefault(tuple(row[k] for k in KEYS), []).append(row["value"])
    return {key: cell(found) for key, found in values.items()}


def cell(values: list[float]) -> Cell:
    """Return mean and sd of the values of several seeds."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(float(np.mean(values)), sd, tuple(values))


def comparison(results: pa.Table) -> list[Row]:
    """Return what the headline table shows: test at the best valid epoch, best Recall@20 first."""
    rows: dict[tuple[str, str, str], dict[tuple[str, int], Cell]] = {}
    for (model, features, protocol, split, selected_by, metric, k), found in figures(results).items():
        if (split, selected_by) == ("test", "valid"):
            rows.setdefault((model, features, protocol), {})[metric, k] = found
    made = [Row(*key, cells) for key, cells in rows.items()]
    return sorted(made, key=lambda r: -r.cells[("recall", 20)].mean if ("recall", 20) in r.cells else 0.0)


def statuses(column: pa.ChunkedArray) -> dict[str, int]:
    """Return value -> rows, most frequent first."""
    counted = pc.value_counts(column.combine_chunks()).to_pylist()
    return {c["values"]: c["counts"] for c in sorted(counted, key=lambda c: (-c["counts"], c["values"]))}
