"""Render results as tables for a terminal."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.io.errors import printable
from alignrec.pipeline.report import table

BRIEF = (("recall", 10), evidence.MAIN, evidence.HEADLINE[-1])  # figures shown in narrow tables
LONGEST = 24  # maximum characters of a cell that is never folded


@dataclass(frozen=True)
class TerminalTable:
    """A table for a terminal: columns that do not fit continue below, and control characters are escaped."""

    table: table.Table
    unbroken: Collection[int] = ()  # text columns that are never folded
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.table.head:
            return
        columns = zip_longest(self.table.head, *self.table.rows, fillvalue="")
        widths = [max(cell_len(printable(cell)) for cell in column) for column in columns]
        least = [
            width if i in self.unbroken else min(width, LONGEST) for i, width in enumerate(widths)
        ]
        for number, band in enumerate(split_columns(least, self.table.texts, options.max_width)):
            title = self.table.heading if number == 0 else ""
            printed = Table(
                title=title or None,
                title_justify="left",
                box=box.SIMPLE,
                show_edge=False,
                padding=0,
            )
            for i in band:
                figures = i >= self.table.texts
                printed.add_column(
                    Text(printable(self.table.head[i])), justify="right" if figures else "left", overflow="fold",
                    no_wrap=i in self.unbroken or (figures and widths[i] <= LONGEST),
                )  # fmt: skip
            for row in self.table.rows:
                printed.add_row(*(Text(printable(row[i])) for i in band if i < len(row)))
            yield printed
        if self.caption:
            yield Text(printable(self.caption), style="dim italic")


def split_columns(widths: Sequence[int], texts: int, room: int) -> Iterator[list[int]]:
    """Split columns into bands of at most `room` characters, each of which begins with the first `texts`."""
    words, band = list(range(texts)), list[int]()
    for column in range(texts, len(widths)):
        if band and sum(1 + widths[i] for i in (*words, *band, column)) > room + 1:
            yield [*words, *band]
            band = []
        band.append(column)
    yield [*words, *band]


def result_tables(results: pa.Table, dataset: str) -> Iterator[TerminalTable]:
    head = ["run", "features", "seeds", *(table.measure_name(*key) for key in BRIEF)]
    found = [(False, one) for one in evidence.list_comparisons(results)]
    for ablated, one in [*found, *((True, one) for one in evidence.list_ablations(results))]:
        rows = []
        for row in one.rows:
            figures = (table.format_figure(row.cells.get(key)) for key in BRIEF)
            rows.append([row.ablation or row.model, row.features, str(row.seeds), *figures])
        protocol = f"protocol {one.protocol} ({one.fingerprint})"
        title = f"ablations, {protocol}" if ablated else f"{protocol}: test, selected by valid"
        yield TerminalTable(table.Table(f"{dataset}, {title}", "", head, rows, texts=2))


def stage_table(dataset: str, records: Iterable[Mapping[str, Any]]) -> TerminalTable:
    """Return rows, seconds and memory of each stage, or dashes for outputs that DVC fetched."""
    # own memory excludes mapped files, whose pages the system may drop
    records, costs = [*records], {"seconds": ",.1f", "peak_memory_mib": ",", "own_memory_mib": ","}
    rows = [
        [
            *(row["stage"], f"{row['rows_in']:,}", f"{row['rows_out']:,}"),
            *("-" if row.get(key) is None else f"{row[key]:{form}}" for key, form in costs.items()),
        ]
        for row in records
    ]
    spent = {key: [row[key] for row in records if row.get(key) is not None] for key in costs}
    most = [f"{max(spent[key], default=0):,}" for key in list(costs)[1:]]
    rows.append(["all", "", "", f"{sum(spent['seconds']):,.1f}", *most])
    head = ["stage", "rows in", "rows out", "seconds", "peak MiB", "own MiB"]
    return TerminalTable(table.Table(f"{dataset}, stages", "", head, rows), unbroken=[0])
