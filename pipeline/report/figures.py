"""Write figures that DVC shows and git tracks: headline figures, rows of plots, tables of the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import CONTROLS, Table, with_labels, without_zero

PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")  # probes that train no recommender
DIGITS = 4  # decimal places


def write_figures(outputs: Outputs, model: str) -> None:
    """Write metrics.json, rows of each plot, and tables; those of parts that did not run are kept."""
    curves = {
        stage: read_json(outputs.layout.history(stage), []) for stage in ("pretrain", "train")
    }
    studied = {
        part: read_json(outputs.layout.study_plot(part), [])
        for part in ("mask", "curves", "heatmaps")
    }
    for plot, rows in (curves | studied).items():
        io.write_json(outputs.layout.figures(plot), rows)
    for part, tables in article_tables(outputs, studied).items():
        write_tables(outputs.layout.figures(f"article-{part}"), tables)
    valid = [line["valid_recall@20"] for line in curves["train"]]
    figures = ({"valid": max(valid)} if valid else {}) | _test_figures(outputs, model)
    for key, probed in probes.read_probes(outputs.probes).items():
        of = probed.by_set("raw", probed.probe.figure)
        figures |= {key: of[outputs.released]} if key in PROBES and outputs.released in of else {}
    last = curves["pretrain"][-1] if curves["pretrain"] else {}
    accuracy = {task: last.get(f"{task}_accuracy") for task in ("mim", "mlm")}
    figures |= {task: value for task, value in accuracy.items() if value is not None}
    io.write_json(
        outputs.layout.figures("metrics"),
        {name: round(value, DIGITS) for name, value in figures.items()},
    )


def write_tables(path: Path, tables: Sequence[Table]) -> None:
    """Write tables of the documentation: significant cells are bold, figures lack the zero before the point."""
    content = []
    for table in tables:
        cells = [[without_zero(cell) for cell in row] for row in table.rows]
        for row, column in table.marks:
            cells[row][column] = f"**{cells[row][column]}**"
        said = {"heading": table.heading, "note": without_zero(table.note)}
        content.append(said | {"head": list(table.head), "rows": cells})
    io.write_json(path, content)


def _test_figures(outputs: Outputs, model: str) -> dict[str, float]:
    rows = outputs.compared[0].rows if outputs.compared else []
    k = headline_cutoff(sorted({k for row in rows for _, k in row.cells}) or [0])
    figures, best = dict[str, float](), dict[str, float]()
    for row in rows:
        recall, ndcg = row.cells["recall", k], row.cells["ndcg", k]
        if (row.model, row.features) == (model, outputs.released):
            sd = {} if recall.sd is None else {"sd": recall.sd}
            figures |= {f"recall@{k}": recall.mean, **sd, f"ndcg@{k}": ndcg.mean}
        if row.model != model or row.features in CONTROLS:
            kind = "baseline" if row.model != model else "control"
            best[kind] = max(recall.mean, best.get(kind, recall.mean))
    return figures | {kind: best[kind] for kind in ("baseline", "control") if kind in best}


def article_tables(
    outputs: Outputs, studied: Mapping[str, list[dict[str, Any]]]
) -> dict[str, list[Table]]:
    found = {
        # only for runs with ablations, which train all recommenders: a default run would leave a few rows
        "recommenders": [
            results.results_table(comparison) for comparison in outputs.compared if outputs.ablated
        ],
        "ablation": [
            results.ablation_table(list(results.ablated_rows(comparison, outputs.tests))).under(
                label
            )
            for comparison, label in with_labels(outputs.ablated)
        ],
        "mask": results.mask_tables(outputs.study),
        "tail": results.lead_tables(outputs.study),
        "hyper-parameters": [
            *results.sweep_points(studied["curves"]),
            *results.heatmap_tables(studied["heatmaps"]),
        ],
    }
    return {part: tables for part, tables in found.items() if tables}
