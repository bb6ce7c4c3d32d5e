"""Sections `benchmark`, `search` and `study` of params.yaml."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from alignrec.pipeline.runtime.section import (
    MAX_RUNS,
    MAX_SEED,
    Cutoffs,
    Name,
    Positive,
    Runs,
    Section,
    Share,
    Threads,
)


class Benchmark(Section):
    """Section `benchmark`: models, feature sets and seeds, evaluated under one protocol."""

    speed: ClassVar[frozenset[str]] = frozenset({"workers"})

    models: list[Name] = ["bpr", "lightgcn", "vbpr", "alignrec"]
    """see pipeline/models/__init__.py"""
    features: list[Name] = ["beit3", "minilm-cnn", "tfidf", "random", "shuffled", "constant"]
    """feature sets for the models that use features; by default all content-based sets and the
    controls"""
    protocol: Literal["mmrec", "strict"] = "mmrec"
    """mmrec masks train items at test, as published tables do; strict masks train and valid"""
    seeds: Runs = 3
    """runs per model and feature set, at least one per draw of the protocol; runs cycle through the
    draws"""
    ks: Cutoffs = [5, 10, 20, 50]
    """cutoffs"""
    modalities: dict[Name, list[Positive]] = {"minilm-cnn": [384, 1280]}
    """feature set -> widths of the modalities concatenated in it, for models that treat modalities
    separately; other feature sets are a single modality"""
    overrides: dict[Name, dict[str, Any]] = {}
    """model -> keys of its class in pipeline/models/ to override"""
    ablations: dict[Name, dict[str, Any]] = {}
    """name of a row -> keys of `train` to override for AlignRec on `train.features`"""
    ablation_seeds: Runs = 1
    """runs of each ablation, at most `seeds`; compared with the first runs of the full model"""
    budget: Annotated[int, Field(ge=0, le=MAX_RUNS)] = 0
    """settings that each model tries on each feature set: the given one, then others drawn from
    `search.spaces`; the highest valid Recall@20 wins, without evaluation on test; 0: no search"""
    control: Name | None = None
    """feature set against which all others are tested under each model that uses features, such as
    `shuffled`; null: only AlignRec is tested, see pipeline/evaluation/benchmark/significance.py"""
    workers: Threads = 2
    """concurrent runs, one thread each"""


Number = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)] | float


class Range(Section):
    """Search range of one setting.

    It is on a logarithmic scale if above 0, and of integers if both ends are integers.
    """

    low: Number
    high: Number

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


RATES: dict[str, Range] = {"lr": Range(low=1e-4, high=5e-2), "l2": Range(low=1e-5, high=0.3)}
# for unsquared norms, which weigh 45 times less than squared ones in a batch of 2048 rows
NORMS: dict[str, Range] = RATES | {"l2": Range(low=1e-4, high=1.0)}
LOSSES = {
    "cca": Range(low=1e-4, high=0.1),
    "reg": Range(low=1e-2, high=1.0),
    "uia": Range(low=1e-2, high=1.0),
}
SPACES: dict[str, dict[str, Range]] = {
    "itemknn": {"neighbours": Range(low=5, high=500), "shrink": Range(low=1.0, high=1000.0)},
    "contentknn": {},
    "ease": {"l2": Range(low=50, high=2000)},
    "l3ae": {
        "l2": Range(low=-50, high=500),
        "content_l2": Range(low=1, high=100),
        "distil": Range(low=0, high=500),
    },
    "bpr": NORMS,
    "lightgcn": NORMS,
    "vbpr": NORMS,
    "alignrec": RATES | LOSSES,
    "freedom": {"lr": RATES["lr"], "modal": Range(low=1e-5, high=1e-2)},
    "mgcn": RATES | {"contrast": Range(low=1e-3, high=0.1)},
}


class Search(Section):
    """Hyperparameter search by valid Recall@20, see `benchmark.budget`."""

    spaces: dict[Name, dict[Name, Range]] = SPACES
    """model -> key of its settings -> range; other models have these defaults, or ranges for those
    of lr and l2 that they read"""


class Mask(Section):
    """Mask modality (method.md section 5): AlignRec, retrained with one modality hidden."""

    ratios: Annotated[list[Share], Field(max_length=100)] = []
    """fractions of items whose image (or text) is hidden; 0, the full set, is always measured;
    empty: no training"""
    seeds: Runs = 3
    """training runs of AlignRec per modality and ratio"""


def _check_dotted(sweep: dict[str, list[int | float]]) -> dict[str, list[int | float]]:
    for key in sweep:
        section, _, name = key.partition(".")
        if section not in ("train", "graph") or not name:
            raise ValueError(
                f"'{key}' is no key of train or graph; write it as in train.lr or graph.k"
            )
    combinations = math.prod(map(len, sweep.values()))
    if combinations > MAX_RUNS:
        raise ValueError(f"{combinations:,} combinations, and {MAX_RUNS:,} are the most")
    return sweep


Values = Annotated[list[Number], Field(min_length=1)]


class Study(Section):
    """Experiments beyond models x feature sets; those that are left empty do not run."""

    speed: ClassVar[frozenset[str]] = frozenset({"workers"})

    mask: Mask = Mask()
    tail: bool = False
    """test AlignRec against every other model by popularity and by length of history, without
    training"""
    sweeps: dict[
        Name, Annotated[dict[str, Values], Field(min_length=1), AfterValidator(_check_dotted)]
    ] = {}
    """sweep -> key (`train.lr`, `graph.k`) -> values; all combinations are evaluated on valid: one
    key gives a curve, two keys a heat map, more keys a heat map per pair"""
    seeds: Runs = 5
    """training runs of AlignRec per value of a sweep"""
    workers: Threads = 2
    """concurrent training runs, one thread each"""

    @property
    def is_empty(self) -> bool:
        return not (self.mask.ratios or self.tail or self.sweeps)

    def settings(self, sweep: str) -> list[dict[str, int | float]]:
        values_by_key = self.sweeps[sweep]
        settings = itertools.product(*values_by_key.values())
        return [dict(zip(values_by_key, values, strict=True)) for values in settings]

    def trainings(self, maskable: int) -> int:
        masked = self.mask.seeds * maskable * 2 * len({*self.mask.ratios} - {0.0})
        return masked + self.seeds * sum(len(self.settings(sweep)) for sweep in self.sweeps)
