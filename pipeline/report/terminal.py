"""Results and datasets as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich import box
from rich.table import Table

from pipeline.evaluation import evidence
from pipeline.evaluation.evidence import Cell, Comparison, Row
from pipeline.layout import Layout
from pipeline.report.markdown import figure
from pipeline.sources.catalogue import SIZES

if TYPE_CHECKING:
    from pipeline.probe.base import Probe

COLUMNS = {"Recall@10": ("recall", 10), "Recall@20": ("recall", 20), "NDCG@20": ("ndcg", 20)}
BEST = 5
"""settings of a sweep in the table"""


def tables(results: pa.Table, dataset: str) -> Iterator[Table]:
    """Yield one table a fingerprint: test at the best valid epoch, mean ± sd over seeds, best Recall@20 first.

    Args:
        results: table RESULTS of one dataset.
        dataset: the title.
    """
    for by in ("valid", "test"):
        for comparison in evidence.comparisons(results, by):
            yield _table(
                f"{dataset}, protocol {comparison.protocol} ({comparison.fingerprint}): test, selected by {by}",
                comparison,
            )
    for comparison in evidence.ablations(results):
        yield _table(f"{dataset}, ablations, protocol {comparison.protocol} ({comparison.fingerprint})", comparison)


def stages(dataset: str, records: Iterable[Mapping[str, Any]]) -> Table:
    """Return where the time of the last runs went: rows, seconds and memory of each stage, from their run records."""
    printed = Table(
        title=f"{dataset}, stages", title_justify="left", box=box.SIMPLE, show_edge=False, padding=0, show_footer=True
    )
    rows = [(r["stage"], r["rows_in"], r["rows_out"], r["seconds"], r["peak_memory_mib"]) for r in records]
    printed.add_column("stage", "all", no_wrap=True)
    for name in ("rows in", "rows out"):
        printed.add_column(name, no_wrap=True, justify="right")
    printed.add_column("seconds", f"{sum(row[3] for row in rows):,.1f}", no_wrap=True, justify="right")
    printed.add_column("peak MiB", f"{max((row[4] for row in rows), default=0):,}", no_wrap=True, justify="right")
    for stage, rows_in, rows_out, seconds, peak in rows:
        printed.add_row(stage, f"{rows_in:,}", f"{rows_out:,}", f"{seconds:,.1f}", f"{peak:,}")
    return printed


def trials(trials: pa.Table, names: Sequence[str]) -> Table:
    """Return the best settings of a sweep, table trials(names), and the first, which for TPE is params.yaml's own."""
    printed = Table(
        title="settings by valid Recall@20", title_justify="left", box=box.SIMPLE, show_edge=False, padding=0
    )
    for name in ("trial", "state", *names, "epochs", "valid"):
        printed.add_column(name, no_wrap=True, justify="left" if name == "state" else "right")
    ranked = sorted(trials.to_pylist(), key=lambda row: (row["state"] != "complete", -(row["valid"] or 0)))
    for row in [*ranked[:BEST], *(r for r in ranked[BEST:] if r["trial"] == 0)]:
        values = [f"{row[name]:.4g}" for name in names]
        valid = "" if row["valid"] is None else f"{row['valid']:.4f}"
        printed.add_row(str(row["trial"]), row["state"], *values, str(row["epochs"]), valid)
    return printed


def _table(title: str, comparison: Comparison) -> Table:
    printed = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
    ablated = any(row.ablation for row in comparison.rows)
    for name in ("ablation",) if ablated else ("model", "features"):
        printed.add_column(name, overflow="fold")
    for name in ("seeds", *COLUMNS):
        printed.add_column(name, no_wrap=True, justify="right")
    full = {row.features for row in comparison.rows if not row.ablation}
    for row in comparison.rows:
        names = [_ablation(row, full)] if ablated else [row.model, row.features]
        printed.add_row(*names, str(row.seeds), *(_short(row.cells.get(key)) for key in COLUMNS.values()))
    return printed


def _ablation(row: Row, full: Collection[str]) -> str:
    """Return what was left out, with the features where they are not the full model's; of that the features alone."""
    if not row.ablation:
        return f"nothing: {row.model} on {row.features}"
    return row.ablation if row.features in full else f"{row.ablation}: {row.features}"


def _short(cell: Cell | None) -> str:
    """Return mean ± sd without the zeros before their points: three of them and two names fit 80 columns."""
    return figure(cell).replace("0.", ".")


def probes(figures: Mapping[str, Any], registered: Mapping[str, Probe]) -> Table:
    """Return the figures of probes.json, a column a probe; the caption says what was skipped.

    A feature set has a row for its raw features, and below them one for its processed features.

    Args:
        figures: the content of probes.json.
        registered: its keys -> probes, in the order in which they are shown.
    """
    judged = {key: probe for key, probe in registered.items() if "skipped" not in figures.get(key, {"skipped": ""})}
    skipped = [
        f"{p.name}: {figures[key]['skipped']}" for key, p in registered.items() if key in figures.keys() - judged
    ]
    printed = Table(box=box.SIMPLE, show_edge=False, padding=0, caption="; ".join(skipped) or None)
    for text in ("feature set", "features"):
        printed.add_column(text, no_wrap=True)
    for probe in judged.values():
        printed.add_column(f"{probe.name} {probe.figure}", justify="right")
    for features, part in (("raw", figures), ("processed", figures.get("processed", {}))):
        columns = [
            {n: v[p.figure] for n, v in part.get(key, {}).items() if isinstance(v, dict) and p.figure in v}
            for key, p in judged.items()
        ]
        for name in dict.fromkeys(name for column in columns for name in column):
            printed.add_row(name, features, *(f"{column[name]:.4f}" if name in column else "" for column in columns))
    return printed


def datasets(sources: Mapping[str, Any], root: Path) -> Table:
    """Return a table of datasets: kind, category, size as counted under `root` or as published, presence."""
    printed = Table("dataset", "kind", "category", "size after filtering", "present")
    for name, source in sources.items():
        category, layout = getattr(source, "category", None) or "", Layout(root, name)
        size = _size(layout.run_record("interactions")) or SIZES.get((source.kind, category), "")
        present = layout.run_record("download").exists()
        printed.add_row(name, source.kind, category, size, "yes" if present else "no")
    return printed


def _size(record: Path) -> str:
    """Return the counts of the interactions stage; empty if it has not run."""
    if not record.exists():
        return ""
    run = json.loads(record.read_text())
    users, items = run["notes"]["users"], run["notes"]["items"]
    return f"{users:,} users, {items:,} items, {run['rows_out']:,} interactions"
