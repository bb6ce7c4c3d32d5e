"""Ablations: AlignRec on `train.features` but for what a row names, beside itself as it is."""

from __future__ import annotations

from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import Entry
from pipeline.benchmark.settings import released_settings
from pipeline.config.parameters import Parameters
from pipeline.models import RELEASED
from pipeline.train.params import Released


def entries(params: Parameters, draws: int = 1) -> list[Entry]:
    """Return the full runs, then those of each ablation, which may name other features; none without ablations."""
    benchmark = params[Benchmark]
    if not benchmark.ablations:
        return []
    full = [Entry(RELEASED, params[Released].features, seed) for seed in range(max(benchmark.seeds, draws))]
    return full + [
        Entry(RELEASED, released_settings(params, name).features, seed, name)
        for name in benchmark.ablations
        for seed in range(max(min(benchmark.ablation_seeds, benchmark.seeds), draws))
    ]
