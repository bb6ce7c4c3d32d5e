"""Write figures that DVC shows and git tracks: headline figures, plots, tables of the docs.

They name the network of their run, which is known by the vectors that it gives to some items.
Processors and numbers of threads round otherwise, so vectors are compared rather than hashed: a run
is of the recorded network if most of its vectors point where those that git keeps do.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.beit3.stopping import TASKS
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import Table, without_zero
from alignrec.pipeline.runtime.layout import Layout

# probes that train no recommender
UNTRAINED_PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")
HISTORIES = ("pretrain", "train")  # stages
PLOTS = ("mask", "curves", "heatmaps")  # of the study
DIGITS = 4  # decimal places
NETWORK = "network"  # key in metrics.json and in each table of the docs
SAMPLE = "network.npy"  # among the figures of a dataset
NETWORK_SET = "beit3"
SAMPLE_ITEMS = 64  # of a sample
LEAST_COSINE = 0.8  # median, of one network: one thread in place of two .94, another seed .58


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

    `network` is the one whose vectors they are of, see `name_network`; empty if they are not of one.
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


def sample_network(layout: Layout) -> np.ndarray:
    """Return vectors of items at equal distances, float16 [64, F], or the equivalent recorded ones.

    Empty if there is no set `beit3`.
    """
    folder = layout.features(NETWORK_SET)
    if not any(folder.glob("features-*.parquet")):
        return np.empty((0, 0), np.float16)
    vectors = io.map_features(folder)  # float32 [I, F]
    rows = np.linspace(0, len(vectors) - 1, SAMPLE_ITEMS).astype(int)
    sample = vectors[rows].astype(np.float16)
    recorded = recorded_figures(layout) / SAMPLE
    if recorded.is_file() and is_one_network(earlier := np.load(recorded), sample):
        return earlier
    return sample


def is_one_network(sample: np.ndarray, other: np.ndarray) -> bool:
    if sample.shape != other.shape:
        return False
    cosines = paired_cosines(sample.astype(np.float32), other.astype(np.float32))
    return bool(np.median(cosines) >= LEAST_COSINE)


def name_network(sample: np.ndarray) -> str:
    return hashlib.sha256(sample.tobytes()).hexdigest()[:12] if sample.size else ""


def recorded_figures(layout: Layout) -> Path:
    """Return the folder of the figures of a dataset that git keeps."""
    return layout.out("figures")
