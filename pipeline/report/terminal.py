"""Render results as tables for a terminal."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.io.errors import printable
from alignrec.pipeline.report import table
from alignrec.pipeline.report.table import Fields

# figures shown in narrow tables
BRIEF = (("recall", 10), evidence.MAIN, evidence.HEADLINE[-1])
# figure of a stage's record -> heading and number format; own memory excludes mapped files, whose
# pages the system may drop
COSTS = {
    "seconds": ("seconds", ",.1f"),
    "peak_memory_mib": ("peak MiB", ","),
    "own_memory_mib": ("own MiB", ","),
}


@dataclass(frozen=True)
class TerminalTable:
    """A table for a terminal: cells are folded where it is narrow, control characters escaped."""

    table: table.Table
    unbroken: Collection[int] = ()  # columns that are never folded
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.table.head:
            return
        printed = Table(
            title=self.table.heading or None,
            title_justify="left",
            box=box.SIMPLE,
            show_edge=False,
            padding=0,
        )
        for column, name in enumerate(self.table.head):
            printed.add_column(
                Text(printable(name)),
                justify="left" if column < self.table.texts else "right",
                overflow="fold",
                no_wrap=column in self.unbroken,
            )
        for row in self.table.rows:
            printed.add_row(*(Text(printable(cell)) for cell in row))
        yield printed

        if self.caption:
            yield Text(printable(self.caption), style="dim italic")


def result_tables(results: pa.Table, dataset: str) -> Iterator[TerminalTable]:
    for comparison in evidence.list_comparisons(results):
        heading = f"protocol {comparison.protocol} ({comparison.fingerprint})"
        yield _result_table(comparison, f"{dataset}, {heading}: test, selected by valid")

    for comparison in evidence.list_ablations(results):
        heading = f"protocol {comparison.protocol} ({comparison.fingerprint})"
        yield _result_table(comparison, f"{dataset}, ablations, {heading}")


def _result_table(comparison: evidence.Comparison, heading: str) -> TerminalTable:
    rows = []
    for run in comparison.rows:
        figures = [table.format_figure(run.cells.get(key)) for key in BRIEF]
        rows.append([run.ablation or run.model, run.features, str(run.seeds), *figures])

    measures = [table.measure_name(*key) for key in BRIEF]
    head = ["run", "features", "seeds", *measures]
    return TerminalTable(table.Table(heading, "", head, rows, texts=2))


def stage_table(dataset: str, records: Iterable[Fields]) -> TerminalTable:
    """Return rows, seconds and memory of each stage, or dashes for outputs that DVC fetched."""
    rows = []
    measured: dict[str, list[float]] = {key: [] for key in COSTS}
    for record in records:
        cells = [record["stage"], f"{record['rows_in']:,}", f"{record['rows_out']:,}"]
        for key, (_, number_format) in COSTS.items():
            cost = record.get(key)
            cells.append("-" if cost is None else f"{cost:{number_format}}")
            measured[key] += [] if cost is None else [cost]
        rows.append(cells)

    seconds, *peaks = measured.values()
    costs = [f"{max(peak, default=0):,}" for peak in peaks]
    rows.append(["all", "", "", f"{sum(seconds):,.1f}", *costs])
    head = ["stage", "rows in", "rows out", *(heading for heading, _ in COSTS.values())]
    return TerminalTable(table.Table(f"{dataset}, stages", "", head, rows), unbroken=[0])
