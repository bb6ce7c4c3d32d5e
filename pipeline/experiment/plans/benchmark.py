"""The benchmark: models x feature sets x seeds, and ablations, with the chosen settings."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import NO_FEATURES, Entry
from pipeline.benchmark.settings import model_settings, released_settings
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans.tuning import Tuned
from pipeline.experiment.run import Experiment
from pipeline.features import registry
from pipeline.features.sets import FeatureSets
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.models.closed import Closed
from pipeline.models.params import Train
from pipeline.seeds import seed_for
from pipeline.train.params import Released


def entries(params: Parameters, draws: int = 1) -> list[Entry]:
    benchmark = params[Benchmark]
    full = [
        Entry(model, features, seed)
        for model in benchmark.models
        for features in (benchmark.features if MODELS[model].needs else [NO_FEATURES])
        for seed in range(max(benchmark.seeds, draws))
    ]
    return list(dict.fromkeys([*full, *ablated_entries(params, draws)]))


def cell(experiment: Experiment, data: Stored, model: str, settings: Train, seed: int) -> Cell:
    """Return the cell of a run.

    The seed depends on neither feature set nor settings, so that all share draws. A closed form has none: its runs on
    one split are one cell.
    """
    number = seed_for("benchmark", experiment.dataset, model, 0 if issubclass(MODELS[model], Closed) else seed)
    return Cell(data, model, settings, experiment.rules, number, tuple(experiment.params[Benchmark].ks))


def whole(experiment: Experiment, layout: Layout, features: str, seed: int) -> Cell:
    """Return AlignRec with the given settings on a feature set of a dataset or of a branch of it."""
    params = experiment.params
    return cell(experiment, Stored.of(params, layout, features), RELEASED, model_settings(params, RELEASED), seed)


def data(experiment: Experiment, features: str, draw: int) -> Stored:
    """Return the data of a run on a draw of the split.

    A feature set that learned from train interactions learns again from those of the draw; UserError if it cannot.
    """
    params, layout = experiment.params, experiment.draws[draw]
    stored = Stored.of(params, layout, features)
    if not draw or not registry.learns(params.encoders, features):
        return stored
    path = experiment.run.folder / "draws" / str(draw) / f"{features}.npy"
    again = replace(stored, features=path, graph=params[Graph])
    if path in experiment.made:
        return again
    node = FeatureSets.of(layout, params[Encode], params.encoders)[features]
    if not node.learned:
        return stored
    if not node.relearns or any(part.learned for part in node.of):
        raise UserError(
            f"'benchmark.features': {features} learned from the train interactions of the first draw and cannot learn "
            "from the others; leave it out, or set interactions.draws to 1"
        )
    io.write_npy(path, node.relearned(np.zeros(0, np.int64)))
    experiment.made.append(path)
    return again


def plan(experiment: Experiment, wanted: Iterable[Entry], tuned: Tuned) -> dict[Entry, Cell]:
    params = experiment.params
    return {
        entry: cell(
            experiment,
            data(experiment, entry.features, entry.seed % len(experiment.draws)),
            entry.model,
            model_settings(tuned.params(params, entry), entry.model, entry.ablation),
            entry.seed,
        )
        for entry in wanted
    }


def ablated_entries(params: Parameters, draws: int = 1) -> list[Entry]:
    benchmark = params[Benchmark]
    if not benchmark.ablations:
        return []
    full = [Entry(RELEASED, params[Released].features, seed) for seed in range(max(benchmark.seeds, draws))]
    return full + [
        Entry(RELEASED, released_settings(params, name).features, seed, name)
        for name in benchmark.ablations
        for seed in range(max(min(benchmark.ablation_seeds, benchmark.seeds), draws))
    ]
