"""Joint beside staged: encoder and recommender trained together, or one after the other, from the same weights."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.benchmark.settings import released_settings
from pipeline.config.parameters import Parameters
from pipeline.experiment.cell import Cell
from pipeline.experiment.joint import Joint
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.study.branch import Branch, prepared
from pipeline.study.params import Study

FEATURES = "beit3-raw"
"""CLS as it is, which is the article's feature, and what gradients reach"""
STAGED, START, JOINT = "staged", "without pre-training", "joint"


class Taught(NamedTuple):
    """One training."""

    variant: str
    """STAGED: on features of the pre-trained encoder; START: of the encoder before it; JOINT: with it, from there"""
    rate: float
    """learning rate of the encoder, as a share of AlignRec's; 0 where its features are given"""
    seed: int
    """number of the run, which starts from the weights of the benchmark's"""


def plan(experiment: Experiment) -> dict[Taught, Cell]:
    """Write the encoder that pre-training starts from, and return the cells; none where there are no rates."""
    joint = experiment.params[Study].joint
    if not joint.rates:
        return {}
    experiment.costs = experiment.run.folder / "costs"
    params, start = started(experiment.params, experiment.layout)
    experiment.made += prepared(experiment.run, params, start, [FEATURES], [FEATURES])
    variants = [(STAGED, 0.0), (START, 0.0), *((JOINT, rate) for rate in joint.rates)]
    return {
        one: cell(experiment, start, one)
        for one in (Taught(variant, rate, seed) for seed in range(joint.seeds) for variant, rate in variants)
    }


def started(params: Parameters, layout: Layout) -> tuple[Parameters, Branch]:
    """Return parameters without a step of pre-training, and where the encoder lies that it would start from."""
    own = params[Pretrain].model_copy(update={"steps": 0, "distill": 0.0})
    return params.having(own), Branch(layout.root, layout.dataset, "joint/start", own.seed)


def cell(experiment: Experiment, start: Branch, one: Taught) -> Cell:
    """Return a training that no patience ends, so that every curve has all epochs."""
    params = experiment.params
    settings = released_settings(params)
    settings = settings.model_copy(update={"patience": settings.epochs})
    data = Stored.of(params, experiment.layout if one.variant == STAGED else start, FEATURES)
    if one.variant == JOINT:
        data = Joint(start, rate=one.rate, graph=params[Graph])
    return benchmark.cell(experiment, data, RELEASED, settings, one.seed)
