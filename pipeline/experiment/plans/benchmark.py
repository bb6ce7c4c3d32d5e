"""The benchmark: models x feature sets x seeds, and ablations, with the settings that a budget has chosen."""

from __future__ import annotations

from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import NO_FEATURES, Entry
from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans import ablations, tuning
from pipeline.experiment.run import Experiment
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.models.params import Train
from pipeline.seeds import seed_for


def entries(params: Parameters) -> list[Entry]:
    """Return the runs of the parameters; models that read ids alone run once a seed."""
    benchmark = params[Benchmark]
    full = [
        Entry(model, features, seed)
        for model in benchmark.models
        for features in (benchmark.features if MODELS[model].needs else [NO_FEATURES])
        for seed in range(benchmark.seeds)
    ]
    return list(dict.fromkeys([*full, *ablations.entries(params)]))


def cell(experiment: Experiment, data: Stored, model: str, settings: Train, seed: int) -> Cell:
    """Return a run as the benchmark measures it; others that measure so name its cells.

    The seed depends on neither feature set nor settings: all are compared on the same draws.

    Args:
        experiment: of the dataset.
        data: that are trained on.
        model: its name.
        settings: all of them.
        seed: number of the run.
    """
    number = seed_for("benchmark", experiment.dataset, model, seed)
    return Cell(data, model, settings, experiment.rules, number, tuple(experiment.params[Benchmark].ks))


def whole(experiment: Experiment, layout: Layout, features: str, seed: int) -> Cell:
    """Return AlignRec, with the settings as given, on a feature set of a dataset or of a branch of it."""
    params = experiment.params
    return cell(
        experiment,
        Stored.of(params, layout, features),
        RELEASED,
        model_settings(params, RELEASED),
        seed,
    )


def plan(experiment: Experiment) -> dict[Entry, Cell]:
    """Return the cells, once settings are chosen for them."""
    params, layout, wanted = experiment.params, experiment.layout, entries(experiment.params)
    tuned = tuning.tuned(experiment, wanted)
    return {
        entry: cell(
            experiment,
            Stored.of(params, layout, entry.features),
            entry.model,
            model_settings(tuned.params(params, entry), entry.model, entry.ablation),
            entry.seed,
        )
        for entry in wanted
    }
