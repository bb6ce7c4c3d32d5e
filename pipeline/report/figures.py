"""What DVC shows of a run, and git keeps: about ten headline figures, and the rows of the plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import schemas
from pipeline import io
from pipeline.evaluation import evidence
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import Row
from pipeline.layout import Layout
from pipeline.probe.registry import PROBES
from pipeline.report.tables import CONTROLS

DIGITS = 4
"""after the point, as in every table"""


def write(layout: Layout, model: str, features: str) -> None:
    """Write metrics.json, and a file of rows a plot; a part that did not run has no figure and no row.

    Args:
        layout: of the dataset.
        model: the released recommender.
        features: the feature set that it is trained on.
    """
    curves = {stage: _rows(layout.history(stage)) for stage in ("pretrain", "train")}
    studied = {part: _rows(layout.study_plot(part)) for part in ("mask", "curves", "heatmaps")}
    for plot, rows in (curves | studied).items():
        io.write_json(layout.figures(plot), rows)
    figures = (_valid(curves["train"]) | _test(layout, model, features) | _probed(layout, features)
               | _pretrained(curves["pretrain"]))  # fmt: skip
    io.write_json(layout.figures("metrics"), {name: round(value, DIGITS) for name, value in figures.items()})


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(io.read_json(path)) if path.exists() else []


def _valid(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return Recall@20 on valid at the best epoch of the released recommender: what settings are chosen by."""
    return {"valid": max(line["valid_recall@20"] for line in history)} if history else {}


def _test(layout: Layout, model: str, features: str) -> dict[str, float]:
    """Return the released recommender's figures on test, and Recall of the best of the others and of the controls."""
    if not layout.results.exists():
        return {}
    compared = evidence.comparisons(io.read_table(layout.results, schemas.RESULTS))
    rows = compared[0].rows if compared else []
    k = headline(sorted({k for row in rows for _, k in row.cells}) or [0])
    ours = [row for row in rows if (row.model, row.features) == (model, features)]
    figures: dict[str, float] = {}
    for row in ours:
        recall, ndcg = row.cells["recall", k], row.cells["ndcg", k]
        sd = {} if recall.sd is None else {"sd": recall.sd}
        figures |= {f"recall@{k}": recall.mean, **sd, f"ndcg@{k}": ndcg.mean}
    figures |= _best("baseline", (row for row in rows if row.model != model), k)
    return figures | _best("control", (row for row in rows if row.model == model and row.features in CONTROLS), k)


def _best(name: str, rows: Iterable[Row], k: int) -> dict[str, float]:
    means = [row.cells["recall", k].mean for row in rows]
    return {name: max(means)} if means else {}


def _probed(layout: Layout, features: str) -> dict[str, float]:
    """Return the headline figure of each probe that was asked of the features as they are."""
    probes: Mapping[str, Any] = io.read_json(layout.probes) if layout.probes.exists() else {}
    asked = {key: probes.get(key, {}).get(features, {}) for key in PROBES}
    return {key: asked[key][PROBES[key].figure] for key in PROBES if PROBES[key].figure in asked[key]}


def _pretrained(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of masked tokens of held-out items that the last epoch predicts, by task."""
    last = history[-1] if history else {}
    return {task: last[f"{task}_accuracy"] for task in ("mim", "mlm") if last.get(f"{task}_accuracy") is not None}
