"""Mask modality (method.md section 5): hide one modality of some items, retrain, compare Recall@20."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.benchmark.settings import released_settings
from pipeline.config.parameters import Parameters
from pipeline.encode.params import MODALITIES, variant
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import open_test
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.models.alignrec import AlignRec
from pipeline.run import Run
from pipeline.seeds import seed_for
from pipeline.study.params import Mask, Study
from pipeline.train import inputs
from pipeline.train.loop import fit

NOTHING = "nothing"
MODULE = "pipeline.study.masking"


class Job(NamedTuple):
    """One training."""

    features: str
    modality: str
    """that is hidden: image, text or NOTHING"""
    ratio: float
    """share of the items of which it is hidden; 0 with NOTHING"""
    seed: int
    """number of the run; equal numbers start from equal weights and draw equal negatives"""


def study(run: Run, rules: Protocol) -> list[Path]:
    """Train what has no record yet, write table MASK; return the files of this part.

    Args:
        run: of the stage.
        rules: by which epochs are chosen; each of its variants judges every run.
    """
    params, layout = run.params[Study], run.layout
    names = maskable(layout)
    todo = jobs(names, params.mask)
    for name in names if todo else ():
        facts = rules.fingerprint, released_settings(run.params).model_dump(), run.params[Graph].k
        run.resume(record_path(layout, Job(name, NOTHING, 0, 0)).parent, files(layout, name), *facts, modules=[MODULE])
    records = {job: record_path(layout, job) for job in todo}
    missing = [job for job, path in records.items() if not path.exists()]
    trained = engine.each(Trial(layout, run.params, rules), missing, params.workers)
    for job, record in run.progress(trained, total=len(missing), unit="run", what="mask modality") if missing else ():
        io.write_json(records[job], record)
    rows = [{"dataset": run.dataset} | row for path in records.values() for row in io.read_json(path)]
    run.write(pa.Table.from_pylist(rows, schemas.MASK), layout.study("mask"), schemas.MASK)
    return [layout.study("mask"), *records.values()]


def maskable(layout: Layout) -> list[str]:
    """Return the encoded feature sets that also exist with each modality hidden, sorted."""
    names = layout.feature_sets()
    return [n for n in names if all(variant(n, m) in names for m in MODALITIES)]


def jobs(names: Iterable[str], mask: Mask) -> list[Job]:
    """Return every training: the whole set once, for both modalities, and each modality at each ratio."""
    ratios = sorted({*mask.ratios} - {0.0})
    hidden = [(NOTHING, 0.0), *((modality, ratio) for modality in MODALITIES for ratio in ratios)]
    seeds = range(mask.seeds) if mask.ratios else ()
    return [Job(name, *what, seed) for name in names for what in hidden for seed in seeds]


def record_path(layout: Layout, job: Job) -> Path:
    """Return the record of one run, JSON: a list of one object a protocol."""
    return layout.study_runs("mask") / job.features / f"{job.modality}-{job.ratio}-{job.seed}.json"


def files(layout: Layout, features: str) -> list[Path]:
    """Return what the trainings of one feature set read."""
    names = [features, *(variant(features, m) for m in MODALITIES)]
    masked = (p for name in names[1:] for p in io.shards(layout.features(name), "features"))
    return [*inputs.files(layout, features), *masked]


def chosen(n_items: int, ratio: float, seed: int) -> np.ndarray:
    """Return which items are masked, bool [I]: the first `ratio` of one seeded permutation.

    So the items that are masked at one ratio are among those at every larger one.
    """
    masked = np.zeros(n_items, bool)
    masked[np.random.default_rng(seed).permutation(n_items)[: round(ratio * n_items)]] = True
    return masked


@dataclass(frozen=True)
class Trial:
    """Trains one job and measures it on test at the best valid epoch; pickled for the processes of a pool."""

    layout: Layout
    params: Parameters
    protocol: Protocol
    """by which the epoch is chosen"""

    def __call__(self, job: Job) -> list[dict[str, Any]]:
        """Return the job's records, one for each of the protocol's variants."""
        parts, vectors, edges = inputs.read(self.layout, job.features)
        assert vectors is not None
        if job.modality != NOTHING:
            # one permutation for both modalities: the same items lose their images, or their texts
            rows = chosen(len(vectors), job.ratio, seed_for("mask", self.layout.dataset))
            vectors = np.where(rows[:, None], self._vectors(variant(job.features, job.modality)), vectors)
            edges = neighbours.neighbours(vectors, self.params[Graph].k)
        seed = seed_for("benchmark", self.layout.dataset, RELEASED, job.seed)  # so the whole set is the benchmark's row
        fitted = fit(AlignRec, parts, vectors, edges, released_settings(self.params), seed)
        cutoff = bounded(parts.n_items)
        results = [open_test(fitted.user, fitted.item, parts, p, [cutoff]) for p in self.protocol.variants]
        return [
            job._asdict()
            | result.label
            | {f"recall@{CUTOFF}": result.test.mean["recall", cutoff], "best_epoch": fitted.best_epoch}
            for result in results
        ]

    def _vectors(self, name: str) -> np.ndarray:
        return io.matrix(io.read_features(self.layout.features(name))["vector"])
