"""AlignRec and two baselines trained on each feature set over several seeds, with paired tests over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.evaluation.trial import open_test
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models.alignrec import AlignRec
from pipeline.models.base import Recommender
from pipeline.models.bm3 import BM3
from pipeline.models.vbpr import VBPR
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit

MODELS: dict[str, type[Recommender]] = {"alignrec": AlignRec, "bm3": BM3, "vbpr": VBPR}
"""AlignRec, its predecessor in production, and the oldest recommender that reads features"""


class Job(NamedTuple):
    """One training."""

    model: str
    features: str
    seed: int
    """number of the run; equal numbers draw equal negatives whatever the features"""


def jobs(names: Sequence[str], seeds: int) -> list[Job]:
    """Return every training, models in order of MODELS."""
    return [Job(model, name, seed) for model in MODELS for name in names for seed in range(seeds)]


@dataclass(frozen=True)
class Trial:
    """Trains one job; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters
    folder: Path
    """holds <features>.npy"""
    protocol: Protocol
    """by which the epoch is chosen"""

    def __call__(self, job: Job) -> list[list[float]]:
        """Return test Recall@20 of each user with a target, in ascending order, at the best valid epoch.

        A list for each of the protocol's variants.
        """
        vectors = np.load(self.folder / f"{job.features}.npy", allow_pickle=False)
        parts = inputs.read(self.layout, None).split
        edges = neighbours.neighbours(vectors, self.params[Graph].k)
        settings = model_settings(self.params, job.model)
        seed = seed_for("compare", self.layout.dataset, job.model, job.seed)
        fitted = fit(MODELS[job.model], parts, vectors, edges, settings, seed)
        cutoff = bounded(parts.n_items)
        results = [open_test(fitted.user, fitted.item, parts, p, [cutoff]) for p in self.protocol.variants]
        return [list(result.test.per_user["recall", cutoff].tolist()) for result in results]


def summary(recalls: dict[Job, list[float]], names: Sequence[str]) -> dict[str, Any]:
    """Return mean and sd over seeds of each model on each set, and paired tests of every two sets.

    The test is over users: each user's recall is first averaged over seeds.

    Args:
        recalls: job -> recall of each test user.
        names: feature sets, in order.
    """
    seeds = sorted({job.seed for job in recalls})
    recall: dict[str, Any] = {}
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for model in MODELS:
        by_user = {name: np.mean([recalls[Job(model, name, s)] for s in seeds], axis=0) for name in names}
        for name in names:
            figure = cell([float(np.mean(recalls[Job(model, name, s)])) for s in seeds])
            recall.setdefault(model, {})[name] = {"mean": figure.mean, "sd": figure.sd, "values": list(figure.values)}
        measure = f"{model} recall@{CUTOFF}"
        comparisons += [(measure, a, b, by_user[a], by_user[b]) for a, b in combinations(names, 2)]
    return {
        "seeds": len(seeds),
        f"recall@{CUTOFF}": recall,
        "paired": corrected(comparisons, seed_for("compare", "tests")),
    }
