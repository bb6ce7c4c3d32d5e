"""Plan of a benchmark: models x feature sets x seeds, ablations, and the search before them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from alignrec.pipeline.evaluation.benchmark.cell import (
    NO_FEATURES,
    VALID_RECALL,
    Cell,
    CellLabel,
    DatasetData,
)
from alignrec.pipeline.evaluation.benchmark.experiment import CellResult, Experiment
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Range
from alignrec.pipeline.evaluation.benchmark.settings import (
    model_settings,
    search_ranges,
    with_settings,
)
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import ABLATED, MODELS, RELEASED
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for

MAX_CELLS = 100_000  # of a benchmark
SIGNIFICANT_DIGITS = 3  # of drawn values, so that tables show them in full
Setting = dict[str, int | float]


def list_labels(params: Parameters, draws: int = 1) -> list[CellLabel]:
    benchmark = params[Benchmark]
    released = params[TrainSettings].features
    seeds = max(benchmark.seeds, draws)
    ablation_seeds = max(min(benchmark.ablation_seeds, benchmark.seeds), draws)

    candidates = list_candidates(benchmark)
    if benchmark.ablations:
        candidates.append(Candidate(RELEASED, released))
    runs = len(candidates) * seeds + len(benchmark.ablations) * ablation_seeds
    if runs > MAX_CELLS:
        raise UserError(
            f"'benchmark': {runs:,} training runs, and {MAX_CELLS:,} are the most; "
            "lower its seeds, or list fewer models and features"
        )

    labels = []
    for model, features in candidates:
        labels += [CellLabel(model, features, seed) for seed in range(seeds)]
    for name, settings in benchmark.ablations.items():
        features = settings.get("features", released)
        labels += [CellLabel(RELEASED, features, seed, name) for seed in range(ablation_seeds)]
    return list(dict.fromkeys(labels))


def list_candidates(benchmark: Benchmark) -> list[Candidate]:
    candidates = []
    for model in benchmark.models:
        names = benchmark.features if MODELS[model].needs else [NO_FEATURES]
        candidates += [Candidate(model, name) for name in names]
    return candidates


def plan_cells(
    experiment: Experiment, labels: Iterable[CellLabel], tuned: Tuned
) -> dict[CellLabel, Cell]:
    cells = {}
    for label in labels:
        layout = experiment.draws[label.seed % len(experiment.draws)]
        data = DatasetData.of(experiment.params, layout, label.features)
        params = tuned.params(experiment.params, label)
        settings = model_settings(params, label.model, label.ablation)
        cell = run_cell(experiment, data, label.model, settings, label.seed)
        # an ablation has the seed of the full model, so that they share their random draws
        cells[label] = replace(cell, model=ABLATED) if label.ablation else cell
    return cells


def run_cell(
    experiment: Experiment, data: DatasetData, model: str, settings: Train, number: int
) -> Cell:
    """Return the cell of run `number` of a model."""
    # The seed depends on neither feature set nor settings, so that all share their random draws.
    # Closed forms have no randomness: their runs on one split are a single cell.
    if issubclass(MODELS[model], Closed):
        number = 0
    seed = seed_for("benchmark", experiment.dataset, model, number)
    ks = tuple(experiment.params[Benchmark].ks)
    return Cell(data, model, settings, experiment.rules, seed, ks)


class Candidate(NamedTuple):
    """A model, and a feature set or NO_FEATURES."""

    model: str
    features: str


class Tried(NamedTuple):
    """A setting and the result of training with it."""

    setting: Setting
    result: CellResult

    @property
    def valid(self) -> float | None:
        """Valid Recall@20; None if the training failed."""
        return self.result.values["best"].get(VALID_RECALL)


@dataclass(frozen=True)
class Tuned:
    """Settings tried for each model on each feature set; empty without a budget."""

    tried: dict[Candidate, list[Tried]]

    def params(self, params: Parameters, label: CellLabel) -> Parameters:
        """Apply the chosen setting of a run; ablations share that of the full model."""
        features = params[TrainSettings].features if label.ablation else label.features
        candidate = Candidate(label.model, features)
        if candidate not in self.tried:
            return params
        return with_settings(params, label.model, self.best(candidate).setting)

    def best(self, candidate: Candidate) -> Tried:
        """Return the setting of highest valid Recall@20, the first on ties.

        Raise UserError if all failed.
        """
        tried = self.tried[candidate]
        best = max(tried, key=lambda trial: -math.inf if trial.valid is None else trial.valid)
        if best.valid is None:
            on_features = "" if candidate.features == NO_FEATURES else f" on {candidate.features}"
            raise UserError(
                f"benchmark.budget: all {len(tried)} settings of {candidate.model}{on_features} "
                f"failed; the first: {tried[0].result.values['reason']}; "
                f"narrow search.spaces.{candidate.model}"
            )
        return best


def tune_models(experiment: Experiment, labels: Iterable[CellLabel]) -> Tuned:
    slow_first = [*reversed(list(MODELS))]
    full = [label for label in labels if not label.ablation]
    full.sort(key=lambda label: slow_first.index(label.model))

    cells = {}
    settings = {}
    for candidate in dict.fromkeys(Candidate(label.model, label.features) for label in full):
        tried = tried_settings(experiment.params, experiment.dataset, candidate.model)
        for number, setting in enumerate(tried):
            cells[candidate, number] = trial_cell(experiment, candidate, setting)
            settings[candidate, number] = setting

    results = experiment.complete(cells, "settings", "setting", tolerant=True)
    trials = ((trial[0], Tried(settings[trial], result)) for trial, result in results.items())
    return Tuned(group_values(trials))


def tried_settings(params: Parameters, dataset: str, model: str) -> list[Setting]:
    """Return `benchmark.budget` settings, the configured first; none without a search space."""
    budget = params[Benchmark].budget
    ranges = search_ranges(params, model)
    if not budget or not ranges:
        return []
    configured = model_settings(params, model)
    drawn = halton_points(ranges, budget - 1, seed_for("tuning", dataset, model, "draws"))
    return [{name: getattr(configured, name) for name in ranges}, *drawn]


def trial_cell(experiment: Experiment, candidate: Candidate, setting: Setting) -> Cell:
    model, features = candidate
    data = DatasetData.of(experiment.params, experiment.layout, features)
    settings = model_settings(with_settings(experiment.params, model, setting), model)
    seed = seed_for("tuning", experiment.dataset, model)
    return Cell(data, model, settings, experiment.rules, seed, (CUTOFF,), "valid")


def halton_points(ranges: Mapping[str, Range], n: int, seed: int) -> list[Setting]:
    """Return n points of a scrambled Halton sequence, a prefix of those for a larger n."""
    from scipy.stats import qmc  # takes half a second to load

    points = qmc.Halton(len(ranges), seed=np.random.default_rng(seed)).random(n)
    settings = []
    for point in points:
        pairs = zip(ranges.items(), point, strict=True)
        settings.append({name: scale_point(space, u) for (name, space), u in pairs})
    return settings


def scale_point(space: Range, u: float) -> int | float:
    """Return the value at u, in [0, 1), of a range."""
    is_whole = isinstance(space.low, int) and isinstance(space.high, int)
    low = space.low
    high = space.high + is_whole
    value = low * math.exp(u * math.log(high / low)) if low > 0 else low + u * (high - low)
    if is_whole:
        return min(math.floor(value), space.high)
    rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return min(max(rounded, low), space.high)
