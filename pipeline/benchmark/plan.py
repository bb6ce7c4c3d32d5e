"""The runs of a benchmark: models x feature sets x seeds, and ablations, with the chosen settings."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline import io
from pipeline.benchmark.cell import Cell, Stored
from pipeline.benchmark.experiment import Experiment
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import NO_FEATURES, Entry
from pipeline.benchmark.search import Tuned
from pipeline.benchmark.settings import model_settings
from pipeline.combine import mapped, names
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.graph.params import Graph
from pipeline.models import MODELS, RELEASED
from pipeline.models.closed import Closed
from pipeline.models.params import Train
from pipeline.seeds import seed_for
from pipeline.train.params import Released


def entries(params: Parameters, draws: int = 1) -> list[Entry]:
    benchmark, released = params[Benchmark], params[Released].features
    seeds, ablated = max(benchmark.seeds, draws), max(min(benchmark.ablation_seeds, benchmark.seeds), draws)
    kinds = [
        (model, features)
        for model in benchmark.models
        for features in (benchmark.features if MODELS[model].needs else [NO_FEATURES])
    ]
    if benchmark.ablations:
        kinds.append((RELEASED, released))
    ablations = [
        Entry(RELEASED, changed.get("features", released), seed, name)
        for name, changed in benchmark.ablations.items()
        for seed in range(ablated)
    ]
    return list(dict.fromkeys([*(Entry(*kind, seed) for kind in kinds for seed in range(seeds)), *ablations]))


def plan(experiment: Experiment, wanted: Iterable[Entry], tuned: Tuned) -> dict[Entry, Cell]:
    params = experiment.params
    return {
        entry: cell(
            experiment,
            _data(experiment, entry.features, entry.seed % len(experiment.draws)),
            entry.model,
            model_settings(tuned.params(params, entry), entry.model, entry.ablation),
            entry.seed,
        )
        for entry in wanted
    }


def cell(experiment: Experiment, data: Stored, model: str, settings: Train, seed: int) -> Cell:
    """Return the cell of a run.

    The seed depends on neither feature set nor settings, so that all share draws. A closed form has none: its runs on
    one split are one cell.
    """
    number = seed_for("benchmark", experiment.dataset, model, 0 if issubclass(MODELS[model], Closed) else seed)
    return Cell(data, model, settings, experiment.rules, number, tuple(experiment.params[Benchmark].ks))


def _data(experiment: Experiment, features: str, draw: int) -> Stored:
    """Return the data of a run on a draw of the split.

    A feature set that learned from train interactions learns again from those of the draw; UserError if it cannot.
    """
    params, layout = experiment.params, experiment.draws[draw]
    stored = Stored.of(params, layout, features)
    if not draw or not names.learns(params, layout.dataset, features):
        return stored
    path = experiment.run.folder / "draws" / str(draw) / f"{features}.npy"
    again = replace(stored, features=path, graph=params[Graph])
    if path in experiment.made:
        return again
    if not names.relearns(params, layout.dataset, features):
        raise UserError(
            f"'benchmark.features': {features} learned from the train interactions of the first draw and cannot learn "
            "from the others; leave it out, or set interactions.draws to 1"
        )
    io.write_npy(path, mapped.relearn(layout, features, np.zeros(0, np.int64)))
    experiment.made.append(path)
    return again
