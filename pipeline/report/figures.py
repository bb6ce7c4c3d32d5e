"""Figures that DVC shows and git tracks: headline figures, rows of plots, and tables of the documentation."""

from collections.abc import Iterable
from typing import Any

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.evidence import Row
from alignrec.pipeline.report import probes, recommenders, study
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import CONTROLS, Table, with_labels, without_zero

PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")  # those that train no recommender
ARTICLE = ("recommenders", "ablation", "mask", "tail", "hyper-parameters")
DIGITS = 4  # decimal places


def write_figures(outputs: Outputs, model: str) -> None:
    """Write metrics.json, rows of each plot, and tables; those of parts that did not run are kept."""
    curves = {stage: outputs.history(stage) for stage in ("pretrain", "train")}
    studied = {part: outputs.plotted(part) for part in ("mask", "curves", "heatmaps")}
    for plot, rows in (curves | studied).items():
        io.write_json(outputs.layout.figures(plot), rows)
    for part, tables in article_tables(outputs).items():
        io.write_json(outputs.layout.figures(f"article-{part}"), [_as_json(table) for table in tables])
    valid = [line["valid_recall@20"] for line in curves["train"]]
    last = curves["pretrain"][-1] if curves["pretrain"] else {}
    accuracy = {task: last.get(f"{task}_accuracy") for task in ("mim", "mlm")}
    figures = ({"valid": max(valid)} if valid else {}) | _test_figures(outputs, model) | _probe_figures(outputs)
    figures |= {task: value for task, value in accuracy.items() if value is not None}
    io.write_json(outputs.layout.figures("metrics"), {name: round(value, DIGITS) for name, value in figures.items()})


def _test_figures(outputs: Outputs, model: str) -> dict[str, float]:
    rows = outputs.compared[0].rows if outputs.compared else []
    k = headline_cutoff(sorted({k for row in rows for _, k in row.cells}) or [0])
    figures: dict[str, float] = {}
    for row in rows:
        if (row.model, row.features) == (model, outputs.released):
            recall, ndcg = row.cells["recall", k], row.cells["ndcg", k]
            sd = {} if recall.sd is None else {"sd": recall.sd}
            figures |= {f"recall@{k}": recall.mean, **sd, f"ndcg@{k}": ndcg.mean}
    figures |= _best_mean("baseline", (row for row in rows if row.model != model), k)
    return figures | _best_mean("control", (row for row in rows if row.model == model and row.features in CONTROLS), k)


def _best_mean(name: str, rows: Iterable[Row], k: int) -> dict[str, float]:
    means = [row.cells["recall", k].mean for row in rows]
    return {name: max(means)} if means else {}


def _probe_figures(outputs: Outputs) -> dict[str, float]:
    read = probes.read_probes(outputs.probes)
    found = {key: read[key].of("raw", read[key].probe.figure) for key in PROBES if key in read}
    return {key: of[outputs.released] for key, of in found.items() if outputs.released in of}


def article_tables(outputs: Outputs) -> dict[str, list[Table]]:
    mask, leads = (outputs.study.get(part, schemas.STUDY[part].empty_table()) for part in ("mask", "tail"))
    found = {
        # every recommender, next to ablations only: the default run trains a few, and would replace them
        "recommenders": [recommenders.results_table(comparison) for comparison in outputs.compared if outputs.ablated],
        "ablation": [
            recommenders.ablation_table(list(recommenders.ablated_rows(comparison, outputs.tests))).under(label)
            for comparison, label in with_labels(outputs.ablated)
        ],
        "mask": study.mask_tables(mask),
        "tail": study.lead_tables(leads),
        "hyper-parameters": [
            *study.sweep_points(outputs.plotted("curves")), *study.heatmap_tables(outputs.plotted("heatmaps"))
        ],
    }  # fmt: skip
    return {part: tables for part, tables in found.items() if tables}


def _as_json(table: Table) -> dict[str, Any]:
    rows = [[without_zero(cell) for cell in row] for row in table.rows]
    for row, column in table.marks:
        rows[row][column] = f"**{rows[row][column]}**"
    return {"heading": table.heading, "note": without_zero(table.note), "head": list(table.head), "rows": rows}
