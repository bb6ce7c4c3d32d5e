"""What came out, for a terminal: the results table of one dataset."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.table import Table

SHOWN = {"Recall@10": ("recall", 10), "Recall@20": ("recall", 20), "NDCG@20": ("ndcg", 20)}
ORDER = "Recall@20"


def tables(results: pa.Table, dataset: str) -> Iterator[Table]:
    """Yield one table a protocol: test at the best valid epoch, mean ± sd over seeds, best Recall@20 first.

    Args:
        results: table RESULTS of one dataset.
        dataset: the title.
    """
    kept = results.filter((pc.field("split") == "test") & (pc.field("selected_by") == "valid"))
    for protocol in sorted(pc.unique(kept["protocol"]).to_pylist()):
        runs = _runs(kept.filter(pc.field("protocol") == protocol))
        title = f"{dataset}, protocol {protocol}: test, selected on valid"
        shown = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
        for name in ("model", "features"):
            shown.add_column(name, no_wrap=True)
        for name in ("seeds", *SHOWN):
            shown.add_column(name, no_wrap=True, justify="right")
        for (model, features), cells in sorted(runs.items(), key=lambda run: -_mean(run[1].get(SHOWN[ORDER]))):
            seeds = max(len(values) for values in cells.values())
            shown.add_row(model, features, str(seeds), *(_cell(cells.get(key)) for key in SHOWN.values()))
        yield shown


def _runs(results: pa.Table) -> dict[tuple[str, str], dict[tuple[str, int], list[float]]]:
    """Return (model, features) -> (metric, k) -> a value a seed."""
    runs: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
    for row in results.to_pylist():
        cells = runs.setdefault((row["model"], row["features"]), {})
        cells.setdefault((row["metric"], row["k"]), []).append(row["value"])
    return runs


def _mean(values: list[float] | None) -> float:
    return pc.mean(pa.array(values)).as_py() if values else 0.0


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    sd = pc.stddev(pa.array(values), ddof=1).as_py() if len(values) > 1 else None
    return f"{_mean(values):.4f}" + ("" if sd is None else f" ±{sd:.4f}")
