"""The same budget for every contender: settings that each model tries on each feature set; valid chooses.

The first setting is the one as given. The others are a quasi-random sequence of the model's space, the same for every
feature set, so that a larger budget goes on where a smaller one ended. Test is not opened.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.benchmark.jobs import NO_FEATURES, Job, Trial, TrialResult, by_length
from pipeline.benchmark.params import Benchmark, Range
from pipeline.benchmark.settings import model_settings, search_ranges, with_settings
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit
from pipeline.train.params import Released

DIGITS = 3
"""significant digits of a drawn value, so that a table shows the setting in full"""

Setting = dict[str, int | float]
Contender = tuple[str, str]
"""model, and feature set or NO_FEATURES"""


class TuningJob(NamedTuple):
    """One training of a setting that is tried."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    number: int
    """of the setting, from 0, the one as given"""

    @property
    def content(self) -> str | None:
        """The feature set to read, if any."""
        return Job(self.model, self.features, 0).content


def tuning_jobs(params: Parameters, dataset: str, jobs: Iterable[Job]) -> list[TuningJob]:
    """Return what the models of a benchmark's jobs try, the slow ones first; nothing where `benchmark.budget` is 0."""
    contenders = dict.fromkeys((job.model, job.features) for job in by_length(jobs) if not job.ablation)
    number = {model: len(settings(params, dataset, model)) for model in dict.fromkeys(model for model, _ in contenders)}
    return [TuningJob(*contender, i) for contender in contenders for i in range(number[contender[0]])]


def settings(params: Parameters, dataset: str, model: str) -> list[Setting]:
    """Return the settings that a model tries: the one as given, then draws from its space, `benchmark.budget` in all.

    A model without a space has nothing to try.
    """
    budget, ranges = params[Benchmark].budget, search_ranges(params, model)
    if not budget or not ranges:
        return []
    given = model_settings(params, model)
    drawn = draws(ranges, budget - 1, seed_for("tuning", dataset, model, "draws"))
    return [{name: getattr(given, name) for name in ranges}, *drawn]


def draws(ranges: Mapping[str, Range], n: int, seed: int) -> list[Setting]:
    """Return n points of a space, from a scrambled Halton sequence; fewer are the beginning of more."""
    from scipy.stats import qmc  # takes half a second to load

    points = qmc.Halton(len(ranges), seed=np.random.default_rng(seed)).random(n)  # [n, ranges], in [0, 1)
    return [
        {name: _value(values, u) for (name, values), u in zip(ranges.items(), point, strict=True)} for point in points
    ]


def _value(values: Range, u: float) -> int | float:
    """Return the value at share u of a range."""
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    low, high = values.low, values.high + whole
    value = low * math.exp(u * math.log(high / low)) if values.log else low + u * (high - low)
    if whole:
        return min(math.floor(value), values.high)
    return min(max(float(f"{value:.{DIGITS}g}"), values.low), values.high)


def inputs_of(layout: Layout, params: Parameters, job: TuningJob) -> tuple[list[Any], list[Any], list[str]]:
    """Return the files, facts and modules on which what a contender tries depends, but for the budget."""
    files = [*inputs.files(layout, job.content), *MODELS.source_files(job.model)]
    space = {name: values.model_dump() for name, values in search_ranges(params, job.model).items()}
    facts = [model_settings(params, job.model).model_dump(), space, params[Benchmark].modalities.get(job.features, [])]
    return files, facts, ["pipeline.benchmark.tuning", MODELS.module(job.model)]


@dataclass(frozen=True)
class Tuner:
    """Trains a setting and looks at valid; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters

    def __call__(self, job: TuningJob) -> dict[str, Any]:
        """Return the job, state, setting, epochs, valid Recall@20 and reason; a diverging loss fails."""
        dataset = self.layout.dataset
        setting = settings(self.params, dataset, job.model)[job.number]
        chosen = model_settings(with_settings(self.params, job.model, setting), job.model)
        data, parts = inputs.read(self.layout, job.content), self.params[Benchmark].modalities.get(job.features, [])
        record = job._asdict() | {"setting": setting}
        try:  # the seed depends on neither feature set nor setting: all start from the same draws
            fitted = fit(MODELS[job.model], *data, chosen, seed_for("tuning", dataset, job.model), parts=parts)
        except UserError as e:
            return record | {"state": "failed", "epochs": 0, "valid": None, "reason": str(e)}
        valid = fitted.valid[f"recall@{CUTOFF}"]
        return record | {"state": "complete", "epochs": len(fitted.history), "valid": valid, "reason": ""}


@dataclass(frozen=True)
class Tuned:
    """What was tried, and what each contender was given by it; empty where there is no budget."""

    records: list[dict[str, Any]]
    """of Tuner, in order"""

    @property
    def chosen(self) -> dict[Contender, dict[str, Any]]:
        """The record of best valid Recall@20 of each contender, the first of equal ones.

        Raises:
            UserError: no setting of a contender trained to the end.
        """
        return {key: _best(list(tried)) for key, tried in groupby(self.records, _contender)}

    def params(self, params: Parameters, job: Job) -> Parameters:
        """Return the parameters with the setting that was chosen for a job; ablations have that of the full model."""
        full = (RELEASED, params[Released].features) if job.ablation else (job.model, job.features)
        record = self.chosen.get(full)
        return with_settings(params, job.model, record["setting"]) if record else params

    def table(self) -> pa.Table:
        """Return table TUNING."""
        best = {(*key, record["number"]) for key, record in self.chosen.items()}
        rows = [
            {"model": r["model"], "features": r["features"], "trial": r["number"], "state": r["state"],
             "setting": json.dumps(r["setting"]), "epochs": r["epochs"], "valid": r["valid"],
             "chosen": (*_contender(r), r["number"]) in best, "reason": r["reason"]}
            for r in self.records
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schemas.TUNING)

    def summary(self) -> dict[str, Any]:
        """Return, under `settings`, model -> features -> the chosen setting; nothing without a budget."""
        nested: dict[str, dict[str, Setting]] = {}
        for (model, features), record in self.chosen.items():
            nested.setdefault(model, {})[features] = record["setting"]
        return {"settings": nested} if nested else {}

    def described(self, params: Parameters) -> dict[str, Any]:
        """Return, under `tuning`, the budget, the spaces, and what each contender chose; nothing without a budget."""
        if not self.records:
            return {}
        spaces = {model: search_ranges(params, model) for model in dict.fromkeys(model for model, _ in self.chosen)}
        tried = Counter(map(_contender, self.records))
        return {
            "tuning": {
                "budget": params[Benchmark].budget,
                "selection": f"best valid recall@{CUTOFF} of one training a setting",
                "spaces": {m: {key: r.model_dump() for key, r in ranges.items()} for m, ranges in spaces.items()},
                "chosen": [
                    {"model": model, "features": features, "tried": tried[model, features]}
                    | {key: record[key] for key in ("number", "setting", "valid")}
                    for (model, features), record in self.chosen.items()
                ],
            }
        }


@dataclass(frozen=True)
class TunedTrial:
    """Trains and measures a job with the setting that was chosen for it; pickled for the processes of a pool."""

    trial: Trial
    tuned: Tuned

    def __call__(self, job: Job) -> list[TrialResult]:
        """Return what Trial does; the records have the setting."""
        params = self.tuned.params(self.trial.params, job)
        results = replace(self.trial, params=params)(job)
        if params is self.trial.params:
            return results
        tuned = model_settings(params, job.model, job.ablation)
        setting = {name: getattr(tuned, name) for name in search_ranges(params, job.model)}
        return [result._replace(record=result.record | {"setting": setting}) for result in results]


def _contender(record: Mapping[str, Any]) -> Contender:
    return record["model"], record["features"]


def _best(tried: list[dict[str, Any]]) -> dict[str, Any]:
    complete = [record for record in tried if record["state"] == "complete"]
    if not complete:
        model, features = _contender(tried[0])
        where = model if features == NO_FEATURES else f"{model} on {features}"
        raise UserError(
            f"benchmark.budget: none of the {len(tried)} settings of {where} trained to the end; "
            f"the first: {tried[0]['reason']}; narrow sweep.spaces.{model}"
        )
    return max(complete, key=lambda record: record["valid"])
