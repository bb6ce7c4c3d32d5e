"""Models x feature sets x seeds under one protocol, and ablations: the jobs, and how one run is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.settings import model_settings, released_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result, open_test
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit
from pipeline.train.params import Released

NO_FEATURES = "none"


class Job(NamedTuple):
    """One training."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    seed: int
    """number of the run"""
    ablation: str = ""
    """key of `benchmark.ablations`; empty for the full model"""

    @property
    def content(self) -> str | None:
        """The feature set to read, if any."""
        return None if self.features == NO_FEATURES else self.features


def jobs(params: Parameters) -> list[Job]:
    """Return the jobs of the parameters; models that read ids alone run once a seed.

    Ablations are of AlignRec on `train.features`, which then also runs in full; an ablation may name other features.
    """
    benchmark = params[Benchmark]
    full = [
        Job(model, features, seed)
        for model in benchmark.models
        for features in (benchmark.features if MODELS[model].needs else [NO_FEATURES])
        for seed in range(benchmark.seeds)
    ]
    if benchmark.ablations:
        full += [Job(RELEASED, params[Released].features, seed) for seed in range(benchmark.seeds)]
    ablated = [
        Job(RELEASED, released_settings(params, name).features, seed, name)
        for name in benchmark.ablations
        for seed in range(min(benchmark.ablation_seeds, benchmark.seeds))
    ]
    return list(dict.fromkeys(full)) + ablated


def by_length(todo: Iterable[Job]) -> list[Job]:
    """Return jobs with the slow models first, so that the processes of a pool end together."""
    slow = list(reversed(MODELS))
    return sorted(todo, key=lambda job: slow.index(job.model))


def is_lacking(layout: Layout, job: Job, rules: Protocol) -> bool:
    """Return whether a record or a ranking of a job is not there, under any of the protocol's variants."""
    kinds = layout.trial, layout.trial_rankings
    return not all(path(*job, suffix=one.suffix).is_file() for one in rules.variants for path in kinds)


class TrialResult(NamedTuple):
    """The record of one training under one protocol, and its test rankings."""

    record: dict[str, Any]
    """job, protocol, fingerprint, epochs, best_epoch, and metrics: split -> "recall@20" -> mean over users"""
    users: np.ndarray
    """int32 [N], the test users"""
    top: np.ndarray
    """int32 [N, max K], the items recommended to them"""
    suffix: str = ""
    """of the protocol"""

    def rankings(self) -> pa.Table:
        """Return users and top, schema rankings(max K)."""
        kind = schemas.ranking(self.top.shape[1])
        lists = pa.FixedSizeListArray.from_arrays(pa.array(self.top.ravel()), type=kind)
        return pa.table({"user_id": self.users, "items": lists})


def write(layout: Layout, job: Job, results: Sequence[TrialResult], ks: Sequence[int]) -> None:
    """Write rankings and records of a training; the record that says that the run is done comes last."""
    for result in reversed(results):
        io.write_table(result.rankings(), layout.trial_rankings(*job, suffix=result.suffix), schemas.rankings(max(ks)))
        io.write_json(layout.trial(*job, suffix=result.suffix), result.record)


@dataclass(frozen=True)
class Trial:
    """Trains one job and measures it; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters
    protocol: Protocol
    """by which the epoch is chosen"""

    def __call__(self, job: Job) -> list[TrialResult]:
        """Train, then open the test split at the best valid epoch: a result for each of the protocol's variants."""
        data = inputs.read(self.layout, job.content)
        benchmark, settings = self.params[Benchmark], model_settings(self.params, job.model, job.ablation)
        # the seed depends on neither feature set nor ablation: all are compared on the same draws
        seed = seed_for("benchmark", self.layout.dataset, job.model, job.seed)
        parts = benchmark.modalities.get(job.features, [])
        fitted = fit(MODELS[job.model], *data, settings, seed, parts=parts)
        run = {"epochs": len(fitted.history), "best_epoch": fitted.best_epoch}
        results = []
        for protocol in self.protocol.variants:
            result = open_test(fitted.user, fitted.item, data.split, protocol, benchmark.ks)
            record = job._asdict() | result.label | run | {"metrics": _means(result)}
            results.append(TrialResult(record, result.test.users, result.test.top, protocol.suffix))
        return results


def _means(result: Result) -> dict[str, dict[str, float]]:
    return {
        part: {f"{metric}@{k}": value for (metric, k), value in evaluation.mean.items()}
        for part, evaluation in (("valid", result.valid), ("test", result.test))
    }
