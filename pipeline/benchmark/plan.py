"""Plan of a benchmark: models x feature sets x seeds, ablations, and the hyperparameter search that precedes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.benchmark.cell import NO_FEATURES, RECALL, Cell, DatasetData, Entry
from alignrec.pipeline.benchmark.experiment import Experiment, Record
from alignrec.pipeline.benchmark.params import Benchmark, Range
from alignrec.pipeline.benchmark.settings import model_settings, search_ranges, with_settings
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.features.names import CEILINGS, kind_of
from alignrec.pipeline.features.params import Combine, Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import ABLATED, MODELS, RELEASED
from alignrec.pipeline.models.ease import Closed
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.seeds import seed_for

BOUNDED = (RELEASED, "l3ae")  # models that are also trained on upper bounds
DIGITS = 3  # significant digits of drawn values, so that tables show them in full
Setting = dict[str, int | float]


def list_entries(params: Parameters, draws: int = 1) -> list[Entry]:
    benchmark, released = params[Benchmark], params[TrainSettings].features
    seeds, ablated = (
        max(benchmark.seeds, draws),
        max(min(benchmark.ablation_seeds, benchmark.seeds), draws),
    )
    kinds = [
        (model, features)
        for model in benchmark.models
        for features in (benchmark.features if MODELS[model].needs else [NO_FEATURES])
        if model in BOUNDED or features not in CEILINGS
    ]
    if benchmark.ablations:
        kinds.append((RELEASED, released))
    ablations = [
        Entry(RELEASED, changed.get("features", released), seed, name)
        for name, changed in benchmark.ablations.items()
        for seed in range(ablated)
    ]
    return list(
        dict.fromkeys(
            [*(Entry(*kind, seed) for kind in kinds for seed in range(seeds)), *ablations]
        )
    )


def plan_cells(experiment: Experiment, wanted: Iterable[Entry], tuned: Tuned) -> dict[Entry, Cell]:
    cells = {}
    for entry in wanted:
        data = _data_of_draw(experiment, entry.features, entry.seed % len(experiment.draws))
        params = tuned.params(experiment.params, entry)
        settings = model_settings(params, entry.model, entry.ablation)
        cell = run_cell(experiment, data, entry.model, settings, entry.seed)
        # an ablation has the seed of the full model, so that they share their random draws
        cells[entry] = replace(cell, model=ABLATED) if entry.ablation else cell
    return cells


def run_cell(
    experiment: Experiment, data: DatasetData, model: str, settings: Train, seed: int
) -> Cell:
    # The seed depends on neither feature set nor settings, so that all share their random draws. Closed forms have no
    # randomness: their runs on one split are a single cell.
    number = seed_for(
        "benchmark", experiment.dataset, model, 0 if issubclass(MODELS[model], Closed) else seed
    )
    return Cell(
        data, model, settings, experiment.rules, number, tuple(experiment.params[Benchmark].ks)
    )


def _data_of_draw(experiment: Experiment, features: str, draw: int) -> DatasetData:
    """Return a run's data for a draw; feature sets learned from train interactions are refitted to that draw."""
    params, layout = experiment.params, experiment.draws[draw]
    stored = DatasetData.of(params, layout, features)
    kind = kind_of(params[Combine].sets, features)
    if not draw or kind is None or kind.refit is None:
        return stored
    path = experiment.run.folder / "draws" / str(draw) / f"{features}.npy"
    again = replace(stored, features=path, graph=params[Graph])
    if path in experiment.made:
        return again
    io.write_npy(path, kind.refit(layout, features, np.zeros(0, np.int64)))
    experiment.made.append(path)
    return again


class Candidate(NamedTuple):
    """A model, and a feature set or NO_FEATURES."""

    model: str
    features: str


class Tried(NamedTuple):
    """A setting and the record of its training."""

    setting: Setting
    record: Record

    @property
    def valid(self) -> float | None:
        """Valid Recall@20; None if the training failed."""
        return self.record.values["best"].get(RECALL)


@dataclass(frozen=True)
class Tuned:
    """Settings tried for each model on each feature set; empty without a budget."""

    tried: dict[Candidate, list[Tried]]

    def params(self, params: Parameters, entry: Entry) -> Parameters:
        """Apply the chosen setting of a run; ablations share that of the full model."""
        full = (
            Candidate(RELEASED, params[TrainSettings].features)
            if entry.ablation
            else Candidate(*entry[:2])
        )
        if full not in self.tried:
            return params
        return with_settings(params, entry.model, self.best(full).setting)

    def best(self, candidate: Candidate) -> Tried:
        """Return the setting of highest valid Recall@20, the first on ties; UserError if all failed."""
        tried = self.tried[candidate]
        complete = [one for one in tried if one.valid is not None]
        if not complete:
            on = "" if candidate.features == NO_FEATURES else f" on {candidate.features}"
            raise UserError(
                f"benchmark.budget: all {len(tried)} settings of {candidate.model}{on} failed; the first: "
                f"{tried[0].record.values['reason']}; narrow search.spaces.{candidate.model}"
            )
        return max(complete, key=lambda one: one.valid or 0.0)


def tune_models(experiment: Experiment, entries: Iterable[Entry]) -> Tuned:
    params, dataset = experiment.params, experiment.dataset
    slow = [*reversed(list(MODELS))]
    ordered = sorted(
        (e for e in entries if not e.ablation), key=lambda entry: slow.index(entry.model)
    )
    candidates = dict.fromkeys(Candidate(entry.model, entry.features) for entry in ordered)
    tries = {one: tried_settings(params, dataset, one.model) for one in candidates}
    cells = {
        (one, number): trial_cell(experiment, one, setting)
        for one, own in tries.items()
        for number, setting in enumerate(own)
    }
    records = experiment.complete(cells, "settings", "setting", tolerant=True)
    return Tuned(
        group_values((one, Tried(tries[one][n], record)) for (one, n), record in records.items())
    )


def tried_settings(params: Parameters, dataset: str, model: str) -> list[Setting]:
    """Return `benchmark.budget` settings, the given one first; none without a search space."""
    budget, ranges = params[Benchmark].budget, search_ranges(params, model)
    if not budget or not ranges:
        return []
    given = model_settings(params, model)
    drawn = halton_points(ranges, budget - 1, seed_for("tuning", dataset, model, "draws"))
    return [{name: getattr(given, name) for name in ranges}, *drawn]


def trial_cell(experiment: Experiment, candidate: Candidate, setting: Setting) -> Cell:
    model, features = candidate
    data = DatasetData.of(experiment.params, experiment.layout, features)
    chosen = model_settings(with_settings(experiment.params, model, setting), model)
    seed = seed_for("tuning", experiment.dataset, model)
    return Cell(data, model, chosen, experiment.rules, seed, (CUTOFF,), "valid")


def halton_points(ranges: Mapping[str, Range], n: int, seed: int) -> list[Setting]:
    """Return n points of a scrambled Halton sequence, a prefix of those for a larger n."""
    from scipy.stats import qmc  # takes half a second to load

    settings: list[Setting] = []
    for point in qmc.Halton(len(ranges), seed=np.random.default_rng(seed)).random(n):
        settings.append({})
        for (name, own), u in zip(ranges.items(), point, strict=True):
            whole = isinstance(own.low, int) and isinstance(own.high, int)
            low, high = own.low, own.high + whole
            value = low * math.exp(u * math.log(high / low)) if low > 0 else low + u * (high - low)
            rounded = math.floor(value) if whole else max(float(f"{value:.{DIGITS}g}"), own.low)
            settings[-1][name] = min(rounded, own.high)
    return settings


class Compared(NamedTuple):
    """One training run of an experiment that compares feature sets."""

    model: str
    features: str
    seed: int  # number of the run; all feature sets get the same negatives for the same number


def plan_compared(
    params: Parameters,
    data: Mapping[str, DatasetData],
    models: Sequence[str],
    seeds: int,
    rules: Protocol,
    items: int,
) -> dict[Compared, Cell]:
    return {
        Compared(model, name, seed): Cell(
            stored, model, model_settings(params, model), rules,
            seed_for("compare", stored.layout.dataset, model, seed), (bounded_cutoff(items),),
        )
        for model in models for name, stored in data.items() for seed in range(seeds)
    }  # fmt: skip
