"""What came out, for a terminal: the results table of one dataset."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

SHOWN = (("recall", 10), ("recall", 20), ("ndcg", 10), ("ndcg", 20))


def table(results: pa.Table, dataset: str) -> Table:
    """Return test figures at the best valid epoch, mean ± sd over seeds, best Recall@20 first.

    Args:
        results: table RESULTS of one dataset; of several protocols, each row names its own.
        dataset: the title.
    """
    kept = results.filter((pc.field("split") == "test") & (pc.field("selected_by") == "valid"))
    groups = ["model", "features", "protocol", "metric", "k"]
    sd = pc.VarianceOptions(ddof=1)
    means = (
        kept.group_by(groups).aggregate([("value", "mean"), ("value", "stddev", sd), ("value", "count")]).to_pylist()
    )
    cells = {tuple(m[g] for g in groups): m for m in means}
    runs = sorted(
        {c[:3] for c in cells}, key=lambda run: -cells.get((*run, "recall", 20), {"value_mean": 0.0})["value_mean"]
    )

    shown = Table(title=f"{dataset}: test at the best valid epoch, mean ± sd over seeds", title_justify="left")
    for name in ("model", "features", "protocol", "seeds"):
        shown.add_column(name)
    for metric, k in SHOWN:
        shown.add_column(f"{metric.replace('ndcg', 'NDCG').replace('recall', 'Recall')}@{k}", justify="right")
    for run in runs:
        found = [cells.get((*run, metric, k)) for metric, k in SHOWN]
        seeds = max((c["value_count"] for c in found if c), default=0)
        shown.add_row(*run, str(seeds), *("" if c is None else _cell(c) for c in found))
    return shown


def _cell(c: dict[str, float | None]) -> str:
    sd = c["value_stddev"]
    return f"{c['value_mean']:.4f}" + ("" if sd is None else f" ± {sd:.4f}")
