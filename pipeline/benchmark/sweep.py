"""Search over settings of one model; valid Recall@20 decides, and test is opened for the winner alone.

With `sweep.test_selected` test is opened for every setting, as published tables do; its choice has a name of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.benchmark.jobs import NO_FEATURES, Job, Trial
from pipeline.benchmark.params import Benchmark, Range, Sweep
from pipeline.benchmark.settings import model_settings, search_ranges, with_settings
from pipeline.benchmark.study import Curve, Outcome, Pruned, Setting, Space, Suggestion
from pipeline.config.base import checked
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import open_test
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.models.params import Train
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit
from pipeline.train.params import Released

TPE = "tpe"
BINS = 5
"""parts that a range is cut into for the heat maps"""


@dataclass(frozen=True)
class Plan:
    """What is swept."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    kind: str
    """TPE, or the grid's name"""
    space: Space
    first: list[Setting]
    """settings tried before any that TPE draws: the current one, or the whole grid"""
    trials: int
    """settings in all"""

    @property
    def names(self) -> tuple[str, str, str]:
        """Its names in the layout."""
        return self.model, self.features, self.kind

    @property
    def content(self) -> str | None:
        """The feature set to read, if any."""
        return Job(self.model, self.features, 0).content

    def facts(self, params: Parameters) -> dict[str, Any]:
        """Return what its figures depend on, without the number of settings: a sweep can be extended."""
        base = model_settings(params, self.model)
        space = {name: v if isinstance(v, list) else v.model_dump() for name, v in self.space.items()}
        tried = params[Sweep].model_dump(exclude={"grids", "spaces"})
        parts = params[Benchmark].modalities.get(self.features, [])
        return {"settings": base.model_dump(), "space": space, "sweep": tried, "modalities": parts}


def plan(params: Parameters, model: str, features: str | None, grid: str | None, tpe: int | None) -> Plan:
    """Return the plan of a command line.

    Raises:
        UserError: neither or both of grid and tpe, an unknown name, or a setting that the model refuses.
    """
    if model not in MODELS:
        raise UserError(f"no model '{model}'; known: {', '.join(MODELS)}")
    if (grid is None) == (tpe is None):
        raise UserError("a sweep is either --grid <name> or --tpe <settings to try>")
    content = (features or params[Released].features) if MODELS[model].needs else NO_FEATURES
    if grid is None:
        assert tpe is not None
        ranges = search_ranges(params, model)
        planned = Plan(model, content, TPE, ranges, current(params, model, ranges), tpe)
    elif grid in params[Sweep].grids:
        lists = params[Sweep].grids[grid]
        every = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
        planned = Plan(model, content, grid, lists, every, len(every))
    else:
        raise UserError(f"sweep.grids: no '{grid}'; there are {', '.join(params[Sweep].grids)}")
    settings(params, model, {name: _any(values) for name, values in planned.space.items()})
    return planned


def current(params: Parameters, model: str, ranges: Mapping[str, Range]) -> list[Setting]:
    """Return the setting of params.yaml, if it lies in the ranges: the baseline."""
    base = model_settings(params, model)
    setting = {name: getattr(base, name, math.nan) for name in ranges}
    return [setting] if all(ranges[name].low <= value <= ranges[name].high for name, value in setting.items()) else []


def settings(params: Parameters, model: str, changed: Setting) -> Train:
    """Return a model's settings with some keys changed; UserError names a key or value that it refuses."""
    base = model_settings(params, model)
    return checked(type(base), base.model_dump() | changed, model)


@dataclass(frozen=True)
class Attempt:
    """Trains one setting; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters
    protocol: Protocol
    plan: Plan

    def __call__(self, suggestion: Suggestion) -> Outcome:
        """Train over the sweep's seeds; the first training may be pruned, a diverging loss fails."""
        job, sweep = Job(self.plan.model, self.plan.features, 0), self.params[Sweep]
        data = inputs.read(self.layout, job.content)
        chosen = settings(self.params, job.model, suggestion.setting)
        parts = self.params[Benchmark].modalities.get(job.features, [])
        curve = Curve(sweep, suggestion.ended)
        watched = lambda line: curve.add(line[f"valid_recall@{CUTOFF}"])  # noqa: E731
        cutoff = bounded(data.split.n_items)
        valid, test, epochs = [], [], 0
        try:
            for i in range(sweep.seeds):
                seed = seed_for("sweep", self.layout.dataset, job.model, i)
                fitted = fit(MODELS[job.model], *data, chosen, seed, None if i else watched, parts=parts)
                epochs += len(fitted.history)
                valid.append(fitted.valid[f"recall@{CUTOFF}"])
                if sweep.test_selected:
                    result = open_test(fitted.user, fitted.item, data.split, self.protocol, [cutoff])
                    test.append(result.test.mean["recall", cutoff])
        except Pruned:
            return Outcome(suggestion.number, "pruned", curve.best, len(curve.best), curve.best[-1])
        except UserError as e:
            return Outcome(suggestion.number, "failed", curve.best, epochs, reason=str(e))
        mean = float(np.mean(valid))
        return Outcome(suggestion.number, "complete", curve.best, epochs, mean, float(np.mean(test)) if test else None)


def table(outcomes: Sequence[tuple[Setting, Outcome]], names: Sequence[str]) -> pa.Table:
    """Return table trials(names)."""
    rows = [
        {"trial": t.number, "state": t.state, **{name: float(setting[name]) for name in names}, "epochs": t.epochs,
         "valid": t.valid, "test": t.test, "reason": t.reason}
        for setting, t in outcomes
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.trials(names))


def best(outcomes: Sequence[tuple[Setting, Outcome]], by: str) -> tuple[Setting, Outcome]:
    """Return the complete setting of highest `by`, valid or test; of equal ones the first.

    Raises:
        UserError: none is complete.
    """
    complete = [pair for pair in outcomes if pair[1].state == "complete"]
    if not complete:
        raise UserError(
            f"sweep: none of {len(outcomes)} settings trained to the end; the first: {outcomes[0][1].reason}"
        )
    return max(complete, key=lambda pair: getattr(pair[1], by))


def effects(outcomes: Sequence[tuple[Setting, Outcome]], space: Space) -> list[dict[str, Any]]:
    """Return the best valid figure at each pair of values of two settings, as rows for a heat map.

    A range is cut into parts, each named by its middle. Rows: settings ("lr, cca"), x and y (values), valid, trials.
    """
    labels = {name: _labels(values) for name, values in space.items()}
    cells: dict[tuple[str, float, float], list[float]] = {}
    for x, y in itertools.combinations(space, 2):
        for setting, t in outcomes:
            if t.valid is not None:
                key = (f"{x}, {y}", _nearest(labels[x], setting[x]), _nearest(labels[y], setting[y]))
                cells.setdefault(key, []).append(t.valid)
    return [
        {"settings": pair, "x": f"{x:.3g}", "y": f"{y:.3g}", "valid": max(values), "trials": len(values)}
        for (pair, x, y), values in sorted(cells.items())
    ]


def heatmaps(effects: Mapping[tuple[str, str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the effects of several sweeps as rows of one file; `map` says of which sweep and settings each is."""
    return [{"map": f"{' '.join(names)}: {row['settings']}", **row} for names, rows in effects.items() for row in rows]


class FinalJob(NamedTuple):
    """One training of a winning setting, evaluated on test."""

    trial: int
    """number of the setting"""
    seed: int
    """number of the run; equal to the benchmark's, so that figures compare"""


@dataclass(frozen=True)
class FinalTrial:
    """Trains the winners and measures them as the benchmark does; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters
    protocol: Protocol
    plan: Plan
    chosen: Mapping[int, Setting]
    """number of the setting -> setting"""

    def __call__(self, job: FinalJob) -> list[dict[str, Any]]:
        """Return the benchmark's records of one run, one a protocol."""
        won = settings(self.params, self.plan.model, self.chosen[job.trial])
        trial = Trial(self.layout, with_settings(self.params, self.plan.model, won.model_dump()), self.protocol)
        return [result.record for result in trial(Job(self.plan.model, self.plan.features, job.seed))]


def _labels(values: Range | list[int | float]) -> list[float]:
    """Return a list's values, or the middles of a range's parts."""
    if isinstance(values, list):
        return [float(v) for v in values]
    low, high = (math.log(v) if values.log else v for v in (values.low, values.high))
    middles = [low + (high - low) * (i + 0.5) / BINS for i in range(BINS)]
    return [math.exp(m) if values.log else m for m in middles]


def _nearest(labels: Sequence[float], value: float) -> float:
    positive = min(*labels, value) > 0
    distance = (lambda a: abs(math.log(a / value))) if positive else (lambda a: abs(a - value))
    return min(labels, key=distance)


def _any(values: Range | list[int | float]) -> int | float:
    return values[0] if isinstance(values, list) else values.low
