"""Shared by the experiments: datasets with other parameters, trained cells, and tables for
docs/study.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.commands.params import load
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.benchmark.cell import Cell, CellLabel, DatasetData
from alignrec.pipeline.benchmark.experiment import Store, complete_cells, read_evaluation
from alignrec.pipeline.benchmark.plan import plan_compared
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.benchmark.significance import summarise_recalls
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.evidence import MAIN, mean_and_sd
from alignrec.pipeline.models.params import DEFAULT_FEATURE_SET
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.report.figures import write_tables
from alignrec.pipeline.report.network import digest_vectors
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
    return plan_compared(params, data, models, seeds, protocol, split.n_items)


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


def compared(values: Mapping[CellLabel, np.ndarray], names: Sequence[str], note: str = "") -> Table:
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
    return Table.of("", note, ("model", "", f"test {measure_name(*MAIN)}", *CHANGE), rows)


def _change_from_first(pair: Mapping[str, float] | None) -> Difference | None:
    if pair is None:
        return None
    return Difference(-pair["high"], -pair["difference"], -pair["low"], pair["p"], pair["p_holm"])


def record(layout: Layout, name: str, *tables: Table, features: str = DEFAULT_FEATURE_SET) -> None:
    """Print tables and write them to outputs/figures, from which `make figures` updates the docs.

    The file has the digest of `features`, `train.features` of the outputs that the experiment read.
    """
    path = layout.root / "figures" / layout.dataset / f"article-{name}.json"
    write_tables(path, tables, digest_vectors(layout, features))
    print(*(f"{table.markdown}\n{table.note}" for table in tables), sep="\n\n")
