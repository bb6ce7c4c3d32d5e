"""Models x feature sets x seeds under one protocol, and ablations: what is trained, and how one run is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import open_test
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.params import RELEASED, Params
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit

NO_FEATURES = "none"


class Job(NamedTuple):
    """One training."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    seed: int
    """number of the run"""
    ablation: str = ""
    """key of `benchmark.ablations`; empty for the model as it is"""

    @property
    def content(self) -> str | None:
        """The feature set to read, if any."""
        return None if self.features == NO_FEATURES else self.features


def jobs(params: Params) -> list[Job]:
    """Return what the parameters ask for; models that read nothing but ids run once a seed.

    Ablations are of AlignRec on `train.features`, which then also runs as it is; an ablation may name other features.
    """
    wanted = params.benchmark
    asked = [
        Job(model, features, seed)
        for model in wanted.models
        for features in (wanted.features if MODELS[model].needs else [NO_FEATURES])
        for seed in range(wanted.seeds)
    ]
    if wanted.ablations:
        asked += [Job(RELEASED, params.train.features, seed) for seed in range(wanted.seeds)]
    left_out = [
        Job(RELEASED, params.released(name).features, seed, name)
        for name in wanted.ablations
        for seed in range(min(wanted.ablation_seeds, wanted.seeds))
    ]
    return list(dict.fromkeys(asked)) + left_out


def by_length(todo: Iterable[Job]) -> list[Job]:
    """Return jobs with the slow models first: a pool that ends on short jobs ends together."""
    slow = list(reversed(MODELS))
    return sorted(todo, key=lambda job: slow.index(job.model))


class Outcome(NamedTuple):
    """What one training is worth."""

    record: dict[str, Any]
    """job, protocol, fingerprint, epochs, best_epoch, and metrics: split -> "recall@20" -> mean over users"""
    users: np.ndarray
    """int32 [N], the test users"""
    top: np.ndarray
    """int32 [N, max K], what they were shown"""

    def rankings(self) -> pa.Table:
        """Return users and top, schema rankings(max K)."""
        kind = schemas.ranking(self.top.shape[1])
        lists = pa.FixedSizeListArray.from_arrays(pa.array(self.top.ravel()), type=kind)
        return pa.table({"user_id": self.users, "items": lists})


@dataclass(frozen=True)
class Trial:
    """Trains one job and measures it; made for the processes of a pool."""

    layout: Layout
    params: Params
    protocol: Protocol

    def __call__(self, job: Job) -> Outcome:
        """Train, then open the test split, once, at the best valid epoch."""
        data = inputs.read(self.layout, job.content)
        asked, settings = self.params.benchmark, self.params.settings(job.model, job.ablation)
        # the seed depends on neither feature set nor ablation: all are compared on the same draws
        seed = seed_for("benchmark", self.layout.dataset, job.model, job.seed)
        parts = asked.modalities.get(job.features, [])
        found = fit(MODELS[job.model], *data, settings, seed, parts=parts)
        judged = open_test(found.user, found.item, data.split, self.protocol, asked.ks)
        means = {
            part: {f"{metric}@{k}": value for (metric, k), value in result.mean.items()}
            for part, result in (("valid", judged.valid), ("test", judged.test))
        }
        run = {"epochs": len(found.history), "best_epoch": found.best_epoch, "metrics": means}
        return Outcome(job._asdict() | judged.label | run, judged.test.users, judged.test.top)
