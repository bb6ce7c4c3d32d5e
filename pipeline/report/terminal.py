"""Results and datasets as tables for a terminal."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.errors import printable
from pipeline.evaluation import evidence
from pipeline.evaluation.evidence import Comparison
from pipeline.facts import recommenders, table
from pipeline.layout import Layout
from pipeline.sources.catalogue import SIZES


def plain(title: str = "", **options: Any) -> Table:
    """Return an empty table without frame; options are rich's."""
    return Table(title=title or None, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0, **options)


def drawn(facts: table.Table, unbroken: Collection[int] = (), **options: Any) -> Table:
    """Return a table; whatever data is in it, the terminal obeys none of it.

    Args:
        unbroken: columns that are never folded.
    """
    printed = plain(facts.heading, **options)
    for i, name in enumerate(facts.head):
        printed.add_column(
            Text(printable(name)),
            justify="left" if i < facts.texts else "right",
            overflow="fold",
            no_wrap=i in unbroken,
        )
    for row in facts.rows:
        printed.add_row(*(Text(printable(cell)) for cell in row))
    return printed


def tables(results: pa.Table, dataset: str) -> Iterator[Table]:
    """Yield one table a fingerprint: test at the best valid epoch, mean ± sd over seeds, best Recall@20 first."""
    for comparison in evidence.comparisons(results):
        under = f"protocol {comparison.protocol} ({comparison.fingerprint})"
        yield _results(f"{dataset}, {under}: test, selected by valid", comparison)
    for comparison in evidence.ablations(results):
        yield _results(f"{dataset}, ablations, protocol {comparison.protocol} ({comparison.fingerprint})", comparison)


def _results(title: str, comparison: Comparison) -> Table:
    results = recommenders.brief(title, comparison)
    return drawn(results, range(results.texts, len(results.head)))


def stages(dataset: str, records: Iterable[Mapping[str, Any]]) -> Table:
    """Return where the time of the last runs went: rows, seconds and memory of each stage, from their run records."""
    printed = plain(f"{dataset}, stages", show_footer=True)
    rows = [(r["stage"], r["rows_in"], r["rows_out"], r.get("seconds"), r.get("peak_memory_mib")) for r in records]
    printed.add_column("stage", "all", no_wrap=True)
    for name in ("rows in", "rows out"):
        printed.add_column(name, no_wrap=True, justify="right")
    printed.add_column("seconds", f"{sum(row[3] or 0 for row in rows):,.1f}", no_wrap=True, justify="right")
    printed.add_column("peak MiB", f"{max((row[4] or 0 for row in rows), default=0):,}", no_wrap=True, justify="right")
    for stage, rows_in, rows_out, seconds, peak in rows:
        spent = ("-", "-") if seconds is None or peak is None else (f"{seconds:,.1f}", f"{peak:,}")
        printed.add_row(stage, f"{rows_in:,}", f"{rows_out:,}", *spent)  # of files that DVC brought nothing is known
    return printed


def datasets(sources: Mapping[str, Any], root: Path) -> Table:
    """Return a table of datasets: kind, category, size as counted under `root` or as published, presence."""
    printed = Table("dataset", "kind", "category", "size after filtering", "present")
    for name, source in sources.items():
        category, layout = getattr(source, "category", None) or "", Layout(root, name)
        size = _size(layout.run_record("interactions")) or str(SIZES.get((source.kind, category), ""))
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
