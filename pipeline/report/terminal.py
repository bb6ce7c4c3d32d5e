"""What came out, for a terminal: the results table of one dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table

from pipeline.config.catalogue import SIZES
from pipeline.evaluation import evidence
from pipeline.evaluation.evidence import Comparison
from pipeline.layout import Layout
from pipeline.report.markdown import figure

SHOWN = {"Recall@10": ("recall", 10), "Recall@20": ("recall", 20), "NDCG@20": ("ndcg", 20)}
BEST = 5
"""settings of a sweep that are shown"""


def tables(results: pa.Table, dataset: str) -> Iterator[Table]:
    """Yield one table a fingerprint: test at the best valid epoch, mean ± sd over seeds, best Recall@20 first.

    Args:
        results: table RESULTS of one dataset.
        dataset: the title.
    """
    for by in ("valid", "test"):
        for found in evidence.comparisons(results, by):
            yield _table(f"{dataset}, protocol {found.protocol} ({found.fingerprint}): test, selected by {by}", found)
    for found in evidence.ablations(results):
        yield _table(f"{dataset}, ablations, protocol {found.protocol} ({found.fingerprint})", found)


def trials(found: pa.Table, names: Sequence[str]) -> Table:
    """Return the best settings of a sweep, table trials(names), and the first, which for TPE is params.yaml's own."""
    shown = Table(title="settings by valid Recall@20", title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
    for name in ("trial", "state", *names, "epochs", "valid"):
        shown.add_column(name, no_wrap=True, justify="left" if name == "state" else "right")
    ranked = sorted(found.to_pylist(), key=lambda row: (row["state"] != "complete", -(row["valid"] or 0)))
    for row in [*ranked[:BEST], *(r for r in ranked[BEST:] if r["trial"] == 0)]:
        values = [f"{row[name]:.4g}" for name in names]
        valid = "" if row["valid"] is None else f"{row['valid']:.4f}"
        shown.add_row(str(row["trial"]), row["state"], *values, str(row["epochs"]), valid)
    return shown


def _table(title: str, found: Comparison) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
    ablated = any(row.ablation for row in found.rows)
    for name in ("model", "features", *(["ablation"] if ablated else [])):
        shown.add_column(name, no_wrap=True)
    for name in ("seeds", *SHOWN):
        shown.add_column(name, no_wrap=True, justify="right")
    for row in found.rows:
        names = [row.model, row.features, *([row.ablation] if ablated else [])]
        shown.add_row(*names, str(row.seeds), *(figure(row.cells.get(key)) for key in SHOWN.values()))
    return shown


def datasets(sources: Mapping[str, Any], root: Path) -> Table:
    """Return a rich table of datasets: what they are, size as counted under `root` or as published, whether there."""
    shown = Table("dataset", "kind", "category", "size after filtering", "present")
    for name, source in sources.items():
        category, layout = getattr(source, "category", None) or "", Layout(root, name)
        size = _size(layout.run_record("interactions")) or SIZES.get((source.kind, category), "")
        there = layout.run_record("download").exists()
        shown.add_row(name, source.kind, category, size, "yes" if there else "no")
    return shown


def _size(record: Path) -> str:
    """Return what the stage interactions has counted here, if it has."""
    if not record.exists():
        return ""
    found = json.loads(record.read_text())
    users, items = found["notes"]["users"], found["notes"]["items"]
    return f"{users:,} users, {items:,} items, {found['rows_out']:,} interactions"
