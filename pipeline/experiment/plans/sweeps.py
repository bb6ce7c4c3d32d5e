"""Sweeps: AlignRec with other settings, item graphs and encoders. Valid alone is looked at, test stays closed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.run import Experiment
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch, prepared, teachers
from pipeline.study.params import Study
from pipeline.study.settings import sweep_params
from pipeline.train.params import Released

Setting = dict[str, int | float]


class Swept(NamedTuple):
    """One training."""

    sweep: str
    setting: str
    """JSON: key -> value"""
    seed: int
    """number of the run; equal numbers start from equal weights and draw equal negatives"""


class Point(NamedTuple):
    """One setting, with all that its trainings depend on."""

    params: Parameters
    """with the setting in place"""
    data: Layout
    """where its features lie: the dataset's, or a branch with an encoder of its own"""
    rebuilt: bool
    """whether the item graph is searched anew, in memory"""

    @property
    def features(self) -> str:
        """The feature set that AlignRec reads."""
        return self.params[Released].features


def plan(experiment: Experiment) -> dict[Swept, Cell]:
    """Train the encoders that settings need; return the cells. A loss that diverges is a result."""
    params, layout = experiment.params, experiment.layout
    points = {
        (sweep, json.dumps(setting)): point(params, layout, setting, f"study.sweeps.{sweep}")
        for sweep in params[Study].sweeps
        for setting in params[Study].settings(sweep)
    }
    branches = {one.data: one for one in points.values() if isinstance(one.data, Branch)}
    for branch, one in branches.items():
        experiment.made += prepared(experiment.run, one.params, branch, [one.features], [])
    shutil.rmtree(teachers(layout), ignore_errors=True)
    cells = {
        Swept(*name, seed): cell(experiment, one, seed)
        for name, one in points.items()
        for seed in range(params[Study].seeds)
    }
    experiment.complete(cells, "sweeps", tolerant=True)
    return cells


def cell(experiment: Experiment, one: Point, seed: int) -> Cell:
    """Return the training of a setting, whose seed is that of `alignrec sweep`."""
    graph = one.params[Graph] if one.rebuilt else None
    data = replace(Stored.of(one.params, one.data, one.features), graph=graph)
    number = seed_for("sweep", experiment.dataset, RELEASED, seed)
    return Cell(data, RELEASED, model_settings(one.params, RELEASED), experiment.rules, number, (CUTOFF,), "valid")


def point(params: Parameters, layout: Layout, setting: Setting, where: str) -> Point:
    """Return a setting of the sweep at path `where`, with where its features lie."""
    own = sweep_params(params, setting, where)
    if own[Pretrain] == params[Pretrain]:
        return Point(own, layout, own[Graph] != params[Graph])
    name = _digest(own[Pretrain].model_dump(mode="json"))
    return Point(own, Branch(layout.root, layout.dataset, f"encoders/{name}", own[Pretrain].seed), True)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
