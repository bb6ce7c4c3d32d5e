"""Wrong content: some items have another item's image or text, or noise, under several recommenders."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pipeline.benchmark.settings import model_settings
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import bounded
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Spoilt, Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.graph.params import Graph
from pipeline.models import MODELS
from pipeline.seeds import seed_for
from pipeline.study.params import Study
from pipeline.study.summaries import WHOLE


class Contended(NamedTuple):
    """One training."""

    model: str
    features: str
    what: str
    """image, text or noise; WHOLE for the set as it is"""
    ratio: float
    """share of the items of which it is wrong; 0 with WHOLE"""
    seed: int
    """number of the run; equal numbers start from equal weights and draw equal negatives"""


def plan(experiment: Experiment) -> dict[Contended, Cell]:
    """Return the cells; those of whole sets are the benchmark's own where it has the model.

    Raises:
        UserError: a model reads no features.
    """
    wrong = experiment.params[Study].wrong
    _check(experiment)
    spoilings = [(WHOLE, 0.0), *((what, ratio) for what in wrong.what for ratio in sorted(wrong.ratios))]
    return {
        one: cell(experiment, one)
        for model in wrong.models
        for features in wrong.features
        for what, ratio in spoilings
        for seed in range(wrong.seeds)
        for one in (Contended(model, features, what, ratio, seed),)
    }


def cell(experiment: Experiment, one: Contended) -> Cell:
    """Return the cell of a training: one permutation of the items for all that is wrong, and a graph of the result."""
    data = Stored.of(experiment.params, experiment.layout, one.features)
    settings = model_settings(experiment.params, one.model)
    whole = benchmark.cell(experiment, data, one.model, settings, one.seed)
    if one.what == WHOLE:
        return whole
    content = Spoilt(one.what, one.ratio, seed_for("mask", experiment.dataset))
    data = replace(data, graph=experiment.params[Graph], hidden=content)
    return replace(whole, data=data, ks=(bounded(experiment.split.n_items),))


def _check(experiment: Experiment) -> None:
    for model in experiment.params[Study].wrong.models:
        if "features" not in MODELS[model].needs:
            raise UserError(f"'study.wrong.models': {model} reads no features, so none can be wrong; leave it out")
