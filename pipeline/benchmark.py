"""Models x feature sets x seeds under one protocol: jobs, one measurement, and the tables of many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import dataset
from pipeline.config import Benchmark, Train
from pipeline.layout import Layout
from pipeline.metrics import evaluate
from pipeline.models import MODELS
from pipeline.protocol import Protocol
from pipeline.seeds import seed_for
from pipeline.train import fit

NO_FEATURES = "none"


class Job(NamedTuple):
    """One training."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    seed: int
    """number of the run"""

    @property
    def content(self) -> str | None:
        """The feature set to read, if any."""
        return None if self.features == NO_FEATURES else self.features


def jobs(params: Benchmark) -> list[Job]:
    """Return what the parameters ask for; models that read nothing but ids run once a seed."""
    return [
        Job(model, features, seed)
        for model in params.models
        for features in (params.features if MODELS[model].needs else [NO_FEATURES])
        for seed in range(params.seeds)
    ]


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
    benchmark: Benchmark
    train: Train
    protocol: Protocol

    def __call__(self, job: Job) -> Outcome:
        """Train, then open the test split, once, at the best valid epoch."""
        inputs = dataset.read(self.layout, job.content)
        settings = self.benchmark.settings(job.model, self.train)
        # the seed does not depend on the feature set: sets are compared on the same draws
        seed = seed_for("benchmark", self.layout.dataset, job.model, job.seed)
        parts = self.benchmark.modalities.get(job.features, [])
        found = fit(job.model, *inputs, settings, seed, parts=parts)
        valid = evaluate(found.user, found.item, inputs.split, "valid", self.benchmark.ks)
        masked = self.protocol.masked(inputs.split, "test")
        test = evaluate(found.user, found.item, inputs.split, "test", self.benchmark.ks, masked)
        means = {
            part: {f"{metric}@{k}": value for (metric, k), value in result.mean.items()}
            for part, result in (("valid", valid), ("test", test))
        }
        judged = {"protocol": self.protocol.name, "fingerprint": self.protocol.fingerprint}
        run = judged | {"epochs": len(found.history), "best_epoch": found.best_epoch, "metrics": means}
        return Outcome(job._asdict() | run, test.users, test.top)


def results(dataset_name: str, records: Iterable[dict[str, Any]]) -> pa.Table:
    """Return records as the long table RESULTS, one row a metric, cutoff and split."""
    rows = [
        {
            "dataset": dataset_name,
            **{key: record[key] for key in ("model", "features", "seed", "protocol")},
            "split": part,
            "metric": name.split("@")[0],
            "k": int(name.split("@")[1]),
            "selected_by": "valid",
            "value": value,
        }
        for record in records
        for part, means in record["metrics"].items()
        for name, value in means.items()
    ]
    return pa.Table.from_pylist(rows, schemas.RESULTS)


def summary(records: Iterable[dict[str, Any]], k: int) -> dict[str, Any]:
    """Return model -> features -> "recall@k", "ndcg@k" -> mean and, over two seeds or more, sd (n - 1); on test."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        for name in (f"recall@{k}", f"ndcg@{k}"):
            values[record["model"], record["features"], name].append(record["metrics"]["test"][name])
    nested: dict[str, Any] = {}
    for (model, features, name), found in values.items():
        spread = {"sd": float(np.std(found, ddof=1))} if len(found) > 1 else {}
        nested.setdefault(model, {}).setdefault(features, {})[name] = {"mean": float(np.mean(found)), **spread}
    return nested
