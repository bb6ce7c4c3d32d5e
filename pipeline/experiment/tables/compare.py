"""Figures of the trainings of `alignrec compare`, and paired tests. N test users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.plans.compare import Compared
from pipeline.seeds import seed_for


def summary(recalls: Mapping[Compared, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Return mean and sd over seeds of each model on each set, and paired tests of every two sets.

    The test is over users: each user's recall is first averaged over seeds.

    Args:
        recalls: training -> float64 [N], recall of each test user.
        names: feature sets, in order.
    """
    seeds = sorted({one.seed for one in recalls})
    recall: dict[str, Any] = {}
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for model in dict.fromkeys(one.model for one in recalls):
        by_user = {name: np.mean([recalls[Compared(model, name, s)] for s in seeds], axis=0) for name in names}
        for name in names:
            figure = cell([float(np.mean(recalls[Compared(model, name, s)])) for s in seeds])
            recall.setdefault(model, {})[name] = {"mean": figure.mean, "sd": figure.sd, "values": list(figure.values)}
        measure = f"{model} recall@{CUTOFF}"
        comparisons += [(measure, a, b, by_user[a], by_user[b]) for a, b in combinations(names, 2)]
    return {
        "seeds": len(seeds),
        f"recall@{CUTOFF}": recall,
        "paired": corrected(comparisons, seed_for("compare", "tests")),
    }
