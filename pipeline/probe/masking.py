"""Mask modality (method.md section 5): mask one modality of some items, retrain, compare Recall@20."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import io
from pipeline.config.features import MODALITIES, variant
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import open_test
from pipeline.graph import neighbours
from pipeline.layout import Layout
from pipeline.models.alignrec import AlignRec
from pipeline.params import Params
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.loop import fit

NOTHING = "nothing"


class Job(NamedTuple):
    """One training."""

    features: str
    masked: str
    """image, text or NOTHING"""
    seed: int
    """number of the run; equal numbers start from equal weights and draw equal negatives"""


def maskable(layout: Layout) -> list[str]:
    """Return the encoded feature sets that also exist with each modality masked, sorted."""
    names = layout.feature_sets()
    return [n for n in names if all(variant(n, m) in names for m in MODALITIES)]


def jobs(names: Iterable[str], seeds: int) -> list[Job]:
    """Return every training of the probe."""
    return [Job(name, m, seed) for name in names for m in (NOTHING, *MODALITIES) for seed in range(seeds)]


def files(layout: Layout, features: str) -> list[Path]:
    """Return what the trainings of one feature set read."""
    names = [features, *(variant(features, m) for m in MODALITIES)]
    tables = [layout.interactions, layout.users, layout.item_ids]
    return [*tables, *(p for name in names for p in io.shards(layout.features(name), "features"))]


def chosen(n_items: int, ratio: float, seed: int) -> np.ndarray:
    """Return which items are masked: the first `ratio` of one seeded permutation, bool [I]."""
    masked = np.zeros(n_items, bool)
    masked[np.random.default_rng(seed).permutation(n_items)[: round(ratio * n_items)]] = True
    return masked


@dataclass(frozen=True)
class Trial:
    """Trains one job and measures it on test at the best valid epoch; pickled for the processes of a pool."""

    layout: Layout
    params: Params
    protocol: Protocol
    """by which the epoch is chosen"""

    def __call__(self, job: Job) -> list[dict[str, Any]]:
        """Return the job's records, one for each of the protocol's variants."""
        vectors = self._vectors(job.features)
        if job.masked != NOTHING:
            # one permutation for both modalities: the same items lose their images, or their texts
            rows = chosen(len(vectors), self.params.probe.mask_ratio, seed_for("mask", self.layout.dataset))
            vectors = np.where(rows[:, None], self._vectors(variant(job.features, job.masked)), vectors)
        parts = inputs.read(self.layout, None).split
        edges = neighbours.neighbours(vectors, self.params.graph.k)
        seed = seed_for("mask", self.layout.dataset, job.seed)
        fitted = fit(AlignRec, parts, vectors, edges, self.params.train, seed)
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


def judged(records: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Return protocol, fingerprint and `summary`; the same of a second protocol under its name, as `also`.

    Args:
        records: of each training, one a protocol.
    """
    by_protocol = [
        {key: of_protocol[0][key] for key in ("protocol", "fingerprint")} | summary(of_protocol)
        for of_protocol in zip(*records, strict=True)
    ]
    return by_protocol[0] | ({"also": by_protocol[1:]} if by_protocol[1:] else {})


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return feature set -> "whole", "image masked", "text masked" -> mean and sd of recall and its relative change.

    The change is taken seed by seed against the unmasked run of the same seed.
    """
    recall = {(r["features"], r["masked"], r["seed"]): r[f"recall@{CUTOFF}"] for r in records}
    out: dict[str, Any] = {}
    for name, masked in dict.fromkeys((r["features"], r["masked"]) for r in records):
        seeds = sorted(s for f, m, s in recall if (f, m) == (name, masked))
        values = [recall[name, masked, s] for s in seeds]
        entry = _spread(f"recall@{CUTOFF}", values)
        if masked != NOTHING:
            whole = [recall[name, NOTHING, s] for s in seeds]
            if all(whole):
                entry |= _spread("relative_change", [v / w - 1 for v, w in zip(values, whole, strict=True)])
        out.setdefault(name, {})["whole" if masked == NOTHING else f"{masked} masked"] = entry
    return out


def _spread(name: str, values: list[float]) -> dict[str, float]:
    figure = cell(values)
    return {name: round(figure.mean, 6)} | ({} if figure.sd is None else {f"{name}_sd": round(figure.sd, 6)})
