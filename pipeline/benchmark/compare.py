"""The trainings of `alignrec compare`: AlignRec and two baselines on each feature set, over several seeds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from alignrec.pipeline.benchmark.cell import Cell, DatasetData
from alignrec.pipeline.benchmark.settings import model_settings
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.harness.config import Parameters
from alignrec.pipeline.harness.seeds import seed_for

MODELS = ("alignrec", "bm3", "vbpr")  # AlignRec, its predecessor in production, and the oldest that reads features


class Compared(NamedTuple):
    """One training of the comparison."""

    model: str
    features: str
    seed: int  # number of the run; equal numbers draw equal negatives for all feature sets


def plan_compared(
    params: Parameters, data: Mapping[str, DatasetData], models: Sequence[str], seeds: int, rules: Protocol, items: int
) -> dict[Compared, Cell]:
    return {
        Compared(model, name, seed): Cell(
            stored, model, model_settings(params, model), rules,
            seed_for("compare", stored.layout.dataset, model, seed), (bounded_cutoff(items),),
        )
        for model in models for name, stored in data.items() for seed in range(seeds)
    }  # fmt: skip


def summarise_recalls(recalls: Mapping[Compared, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Return mean and sd over seeds, and paired tests of every two sets over users, from recalls float64 [N]."""
    seeds = sorted({one.seed for one in recalls})
    recall: dict[str, Any] = {}
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for model in dict.fromkeys(one.model for one in recalls):
        by_user = {name: np.mean([recalls[Compared(model, name, s)] for s in seeds], axis=0) for name in names}
        for name in names:
            figure = mean_and_sd([float(np.mean(recalls[Compared(model, name, s)])) for s in seeds])
            recall.setdefault(model, {})[name] = {"mean": figure.mean, "sd": figure.sd, "values": list(figure.values)}
        measure = f"{model} recall@{CUTOFF}"
        comparisons += [(measure, a, b, by_user[a], by_user[b]) for a, b in combinations(names, 2)]
    return {
        "seeds": len(seeds),
        f"recall@{CUTOFF}": recall,
        "paired": corrected_tests(comparisons, seed_for("compare", "tests")),
    }
