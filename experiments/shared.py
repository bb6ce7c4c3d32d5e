"""Shared by the experiments: datasets with other parameters, trained cells, and tables for
docs/study.md.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.cell import Cell, CellLabel, DatasetData
from alignrec.pipeline.evaluation.benchmark.experiment import Store, complete_cells, read_evaluation
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.evaluation.evidence import MAIN, mean_and_sd
from alignrec.pipeline.evaluation.probe.judge import Processing, answer_sets
from alignrec.pipeline.evaluation.probe.questions import Questions
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.models.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.report.figures import (
    name_network,
    recorded_figures,
    sample_network,
    write_tables,
)
from alignrec.pipeline.report.table import (
    CHANGE,
    Difference,
    Table,
    Value,
    describe_seeds,
    measure_name,
)
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import running
from alignrec.pipeline.runtime.section import validate
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.stages.order import STAGES

RECALL = f"recall@{CUTOFF}"
TESTED = "the change is from the first row, tested over users; p is Holm's."


def opened(dataset: str, params: Path, root: Path, name: str) -> tuple[Parameters, Layout, Path]:
    """Return the parameters and paths of a dataset, and the folder of the experiment."""
    return load(params, dataset), Layout(root, dataset), root / "experiments" / name


def pretraining(params: Parameters, **keys: Any) -> Pretrain:
    """Return section `pretrain` with other keys.

    For another size, whose defaults differ, only the seed is kept.
    """
    section = params[Pretrain]
    same_size = keys.get("size", section.size) == section.size
    base = section.model_dump(exclude_unset=True) if same_size else {"seed": section.seed}
    return validate(Pretrain, base | keys, "pretrain")


def branched(layout: Layout, root: Path, params: Parameters, stages: Sequence[str]) -> Layout:
    """Run stages with other parameters under another root, which links to the outputs of all other
    stages.
    """
    branch = Layout(root.resolve(), layout.dataset)
    for name in STAGES:
        folder = branch.folder(name)
        has_output = layout.folder(name).is_dir()
        if name not in stages and has_output and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(layout.folder(name).resolve())

    for name in stages:
        items = params[Encode].encoders if name == "encode" else [""]
        for item in items:
            with running(name, layout.dataset, params, branch.root, item) as run:
                STAGES[name].main(run)
    return branch


def planned(
    params: Parameters, data: Mapping[str, DatasetData], models: Sequence[str], seeds: int
) -> dict[CellLabel, Cell]:
    """Return the cells of each model on each dataset; equal seeds draw equal negatives."""
    layout = next(iter(data.values())).layout
    split = inputs.read_inputs(layout, None).split
    protocol = protocol_of(params, layout.dataset, split)
    ks = (bounded_cutoff(split.n_items),)
    cells = {}
    for model in models:
        settings = model_settings(params, model)
        for name, stored in data.items():
            for number in range(seeds):
                seed = seed_for("compare", stored.layout.dataset, model, number)
                label = CellLabel(model, name, number)
                cells[label] = Cell(stored, model, settings, protocol, seed, ks)
    return cells


def recalls(
    trainings: Mapping[CellLabel, Cell], folder: Path, workers: int
) -> dict[CellLabel, np.ndarray]:
    """Train the cells without a record and return test recall per user, float64 [N]."""
    recalls_of_cells = {}
    records = complete_cells(trainings, Store(folder / "cells"), workers)
    for compared_cell, cell_record in records.items():
        cell = trainings[compared_cell]
        assert isinstance(cell.data, DatasetData)
        split = inputs.read_inputs(cell.data.layout, None).split
        k = bounded_cutoff(split.n_items)
        rankings = cell_record.rankings[cell.protocol.suffix]
        evaluation = read_evaluation(rankings, split, [k])
        recalls_of_cells[compared_cell] = evaluation.per_user["recall", k]
    return recalls_of_cells


def compared(
    values: Mapping[CellLabel, np.ndarray],
    names: Sequence[str],
    note: str = "",
    split: str = "test",
) -> Table:
    """Return a table of recall by model and name, with paired tests over users against the first
    name.
    """
    summary = summarise_recalls(values, names)
    pairs = {}
    for pair in summary["paired"]:
        if pair["a"] == names[0]:
            model = pair["measure"].split()[0]
            pairs[model, pair["b"]] = pair

    rows: list[tuple[Value, ...]] = []
    for model, figures in summary[RECALL].items():
        for name, figure in figures.items():
            change = _change_from_first(pairs.get((model, name)))
            rows.append((model, name, mean_and_sd(figure["values"]), change))

    seeds = describe_seeds([summary["seeds"]]).capitalize()
    note = f"{note} {seeds}; {TESTED}".strip()
    return Table.of("", note, ("model", "", f"{split} {measure_name(*MAIN)}", *CHANGE), rows)


def summarise_recalls(
    recalls: Mapping[CellLabel, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Return mean and sd over seeds, and paired tests of every two sets over users.

    `recalls` are float64 [N].
    """
    seeds = sorted({label.seed for label in recalls})
    summary: dict[str, Any] = {}
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for model in dict.fromkeys(label.model for label in recalls):
        summary[model] = {}
        by_user = {}
        for name in names:
            by_seed = [recalls[CellLabel(model, name, seed)] for seed in seeds]
            by_user[name] = np.mean(by_seed, axis=0)
            figure = mean_and_sd([float(np.mean(recall)) for recall in by_seed])
            values = list(figure.values)
            summary[model][name] = {"mean": figure.mean, "sd": figure.sd, "values": values}

        measure = f"{model} recall@{CUTOFF}"
        comparisons += [(measure, a, b, by_user[a], by_user[b]) for a, b in combinations(names, 2)]
    return {
        "seeds": len(seeds),
        RECALL: summary,
        "paired": corrected_tests(comparisons, seed_for("compare", "tests")),
    }


def _change_from_first(pair: Mapping[str, float] | None) -> Difference | None:
    if pair is None:
        return None
    return Difference(-pair["high"], -pair["difference"], -pair["low"], pair["p"], pair["p_holm"])


def paired_changes(
    values: Mapping[CellLabel, np.ndarray], pairs: Mapping[str, str]
) -> dict[str, Difference]:
    """Test each set against another over users, on the mean over seeds; corrected for all pairs."""
    by_set: dict[str, list[np.ndarray]] = {}
    for label, recall in values.items():
        by_set.setdefault(label.features, []).append(recall)
    means = {name: np.mean(by_seed, axis=0) for name, by_seed in by_set.items()}

    pairs_of_arrays = [("", name, base, means[name], means[base]) for name, base in pairs.items()]
    tests = corrected_tests(pairs_of_arrays, seed_for("compare", "tests"))
    return {test["a"]: Difference.of(test) for test in tests}


def answer_probes(
    layout: Layout,
    sets: Mapping[str, np.ndarray],
    probes: Sequence[str],
    processing: Processing | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the headline hits of each case, probe's name and figure -> set -> float64 [G].

    Sets are raw unless `processing` is given.
    """
    data = read_probe_data(layout)
    asked = {name: PROBES[name].ask(data) for name in probes}
    tasks = {name: task for name, task in asked.items() if isinstance(task, Questions)}
    answers = answer_sets(tasks, sets.items(), [CUTOFF], processing=processing)
    of_form = answers[0] if processing is None else answers[1]

    hits = {}
    for name, by_set in of_form.items():
        title = f"{PROBES[name].name} {PROBES[name].figure}"
        hits[title] = {key: np.asarray(rates[:, 0], np.float64) for key, rates in by_set.items()}
    return hits


def read_probe_data(layout: Layout) -> Data:
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    return Data(io.read_table(layout.interactions, schemas.INTERACTIONS), n_items)


def read_vectors(layout: Layout, features: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(features))["vector"])


def record(layout: Layout, name: str, *tables: Table, reads_network: bool = True) -> None:
    """Print tables and write them to outputs/figures, from which `make figures` updates the docs.

    The file names the network of the run, unless the experiment reads or trains others.
    """
    network = name_network(sample_network(layout)) if reads_network else ""
    write_tables(recorded_figures(layout) / f"article-{name}.json", tables, network)
    print(*(f"{table.markdown}\n{table.note}" for table in tables), sep="\n\n")
