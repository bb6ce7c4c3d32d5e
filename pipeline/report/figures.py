"""Write figures that DVC shows and git tracks: headline figures, plots, tables of the docs."""

from collections.abc import Sequence
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.beit3.stopping import TASKS
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.network import NETWORK, SAMPLE, name_network, sample_network
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import Table, without_zero

# probes that train no recommender
UNTRAINED_PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")
HISTORIES = ("pretrain", "train")  # stages
PLOTS = ("mask", "curves", "heatmaps")  # of the study
DIGITS = 4  # decimal places


def write_figures(outputs: Outputs, model: str) -> None:
    """Write metrics.json, rows of each plot, and tables; those of parts that did not run stay."""
    layout = outputs.layout
    histories = {stage: read_json(layout.history(stage), []) for stage in HISTORIES}
    plots = {part: read_json(layout.study_plot(part), []) for part in PLOTS}
    for name, rows in (histories | plots).items():
        io.write_json(layout.figures(name), rows)

    sample = sample_network(layout)
    network = name_network(sample)
    if network:
        io.write_npy(layout.figures("metrics").with_name(SAMPLE), sample)
    for part, tables in article_tables(outputs).items():
        write_tables(layout.figures(f"article-{part}"), tables, network)

    figures = {}
    if histories["train"]:
        figures["valid"] = max(epoch["valid_recall@20"] for epoch in histories["train"])
    figures |= _test_figures(outputs, model)
    figures |= _probe_figures(outputs)
    if histories["pretrain"]:
        last = histories["pretrain"][-1]
        accuracies = {task: last.get(f"{task}_accuracy") for task in TASKS}
        figures |= {task: value for task, value in accuracies.items() if value is not None}
    rounded = {name: round(value, DIGITS) for name, value in figures.items()}
    made_from = {NETWORK: network} if network else {}
    io.write_json(layout.figures("metrics"), rounded | made_from)


def write_tables(path: Path, tables: Sequence[Table], network: str) -> None:
    """Write tables of the docs: significant cells bold, figures without the leading zero.

    `network` is the one whose vectors they are of, see network.py; empty if they are not of one.
    """
    content = []
    for table in tables:
        rows = [[without_zero(cell) for cell in row] for row in table.rows]
        for row, column in table.marks:
            rows[row][column] = f"**{rows[row][column]}**"
        content.append(
            {
                "heading": table.heading,
                "note": without_zero(table.note),
                "head": list(table.head),
                "rows": rows,
                NETWORK: network,
            }
        )
    io.write_json(path, content)


def _test_figures(outputs: Outputs, model: str) -> dict[str, float]:
    if not outputs.compared:
        return {}
    rows = outputs.compared[0].rows
    k = headline_cutoff(sorted({k for row in rows for _, k in row.cells}))

    figures: dict[str, float] = {}
    rivals: dict[str, list[float]] = {"baseline": [], "control": []}
    for row in rows:
        recall = row.cells["recall", k]
        if (row.model, row.features) == (model, outputs.released):
            figures[f"recall@{k}"] = recall.mean
            if recall.sd is not None:
                figures["sd"] = recall.sd
            figures[f"ndcg@{k}"] = row.cells["ndcg", k].mean
        if row.model != model:
            rivals["baseline"].append(recall.mean)
        elif row.features in CONTROLS:
            rivals["control"].append(recall.mean)
    return figures | {kind: max(recalls) for kind, recalls in rivals.items() if recalls}


def _probe_figures(outputs: Outputs) -> dict[str, float]:
    figures = {}
    for key, probed in probes.read_probes(outputs.probes).items():
        headline = probed.headline(probes.RAW)
        if key in UNTRAINED_PROBES and outputs.released in headline:
            figures[key] = headline[outputs.released]
    return figures


def article_tables(outputs: Outputs) -> dict[str, list[Table]]:
    tables = {
        "tuning": results.tuning_tables(outputs.tuning),
        "ablation": results.ablation_tables(outputs),
        "mask": results.mask_tables(outputs.study),
        "tail": results.lead_tables(outputs.study),
        "hyper-parameters": results.sweep_tables(outputs.layout),
    }
    # only runs with ablations train all recommenders: a default run would leave a few rows
    if outputs.ablated:
        tables["recommenders"] = _recommender_tables(outputs)
    return {part: part_tables for part, part_tables in tables.items() if part_tables}


def _recommender_tables(outputs: Outputs) -> list[Table]:
    tables = []
    for comparison in outputs.compared:
        tables.append(results.results_table(comparison))
        tested = results.rival_table(comparison, outputs.tests, outputs.released)
        if tested is not None:
            tables.append(tested)
    return tables
