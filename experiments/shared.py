"""Shared by the experiments: datasets with other parameters, trained cells, and tables of tests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from alignrec.commands.params import load
from alignrec.pipeline.benchmark.cell import Cell, DatasetData
from alignrec.pipeline.benchmark.experiment import Store, complete_cells, read_evaluation
from alignrec.pipeline.benchmark.plan import Compared, plan_compared
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.benchmark.significance import summarise_recalls
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.harness.config import Parameters
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.train import inputs
from alignrec.stages.order import STAGES

RECALL = f"recall@{CUTOFF}"


def opened(dataset: str, params: Path, root: Path, name: str) -> tuple[Parameters, Layout, Path]:
    """Return the parameters and paths of a dataset, and the folder of the experiment."""
    return load(params, dataset), Layout(root, dataset), root / "experiments" / name


def branched(layout: Layout, root: Path, params: Parameters, stages: Sequence[str]) -> Layout:
    """Run stages with other parameters under another root, which links to the outputs of all other stages."""
    branch = Layout(root.resolve(), layout.dataset)
    for name in STAGES:
        if name not in stages and layout.folder(name).is_dir() and not branch.folder(name).exists():
            branch.folder(name).parent.mkdir(parents=True, exist_ok=True)
            branch.folder(name).symlink_to(layout.folder(name).resolve())
    for name in stages:
        for item in params[Encode].encoders if name == "encode" else [""]:
            with running(name, layout.dataset, params, branch.root, item) as run:
                STAGES[name].main(run)
    return branch


def planned(
    params: Parameters, data: Mapping[str, DatasetData], models: Sequence[str], seeds: int
) -> dict[Compared, Cell]:
    """Return the cells of each model on each dataset; equal seeds draw equal negatives."""
    layout = next(iter(data.values())).layout
    split = inputs.read_inputs(layout, None).split
    return plan_compared(params, data, models, seeds, protocol_of(params, layout.dataset, split), split.n_items)


def recalls(trainings: Mapping[Compared, Cell], folder: Path, workers: int) -> dict[Compared, np.ndarray]:
    """Train the cells without a record in the folder and return test recall per user, float64 [N]."""
    found = {}
    for one, record in complete_cells(trainings, Store(folder / "cells"), workers).items():
        data = trainings[one].data
        assert isinstance(data, DatasetData)
        split = inputs.read_inputs(data.layout, None).split
        k = bounded_cutoff(split.n_items)
        rankings = record.rankings[trainings[one].protocol.suffix]
        found[one] = read_evaluation(rankings, split, [k]).per_user["recall", k]
    return found


def compared(found: Mapping[Compared, np.ndarray], names: Sequence[str]) -> Iterator[str]:
    """Yield a table of recall by model and name, with paired tests over users against the first name."""
    tested = summarise_recalls(found, names)
    pairs = {(row["measure"].split()[0], row["b"]): row for row in tested["paired"] if row["a"] == names[0]}
    yield f"| model | | test {RECALL} | change | 95 % interval | p |\n|---|---|---|---|---|---|"
    for model, figures in tested[RECALL].items():
        for name, figure in figures.items():
            spread = f"{figure['mean']:.4f}" + (f" ± {figure['sd']:.4f}" if figure["sd"] is not None else "")
            row, change = pairs.get((model, name)), " | | "
            if row:
                change = f"{-row['difference']:+.4f} | {-row['high']:+.4f} .. {-row['low']:+.4f} | {row['p_holm']:.4f}"
            yield f"| {model} | {name} | {spread} | {change} |"
