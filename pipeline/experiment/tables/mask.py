"""Mask modality (method.md section 5): AlignRec retrained with one modality of some items hidden; table MASK."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline.benchmark.params import Benchmark
from pipeline.encode.params import MODALITIES, variant
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Hidden, Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.features.registry import CEILINGS
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.seeds import seed_for
from pipeline.study import summaries
from pipeline.study.params import Mask, Study
from pipeline.study.summaries import WHOLE


class Masked(NamedTuple):
    """One training."""

    features: str
    modality: str  # that is hidden: image, text or WHOLE
    ratio: float  # share of the items whose modality is hidden; 0 with WHOLE
    seed: int  # number of the run; equal numbers start from equal weights and draw equal negatives


def plan(experiment: Experiment) -> dict[Masked, Cell]:
    names = maskable(experiment.layout)
    return {one: cell(experiment, one) for one in trainings(names, experiment.params[Study].mask)}


def maskable(layout: Layout) -> list[str]:
    """Return the feature sets that also exist with each modality hidden, without ceilings, sorted."""
    names = layout.feature_sets()
    return [n for n in names if n not in CEILINGS and all(variant(n, m) in names for m in MODALITIES)]


def trainings(names: Iterable[str], mask: Mask) -> list[Masked]:
    ratios = sorted({*mask.ratios} - {0.0})
    hidden = [(WHOLE, 0.0), *((modality, ratio) for modality in MODALITIES for ratio in ratios)]
    seeds = range(mask.seeds) if mask.ratios else ()
    return [Masked(name, *what, seed) for name in names for what in hidden for seed in seeds]


def cell(experiment: Experiment, one: Masked) -> Cell:
    whole = benchmark.whole(experiment, experiment.layout, one.features, one.seed)
    if one.modality == WHOLE and CUTOFF in experiment.params[Benchmark].ks:
        return whole
    ks = (bounded(experiment.split.n_items),)
    if one.modality == WHOLE:
        return replace(whole, ks=ks, opens="test")
    assert isinstance(whole.data, Stored)
    hidden = Hidden(one.modality, one.ratio, seed_for("mask", experiment.dataset))
    data = replace(whole.data, graph=experiment.params[Graph], hidden=hidden)
    return replace(whole, data=data, ks=ks, opens="test")


def table(experiment: Experiment, found: Mapping[Masked, Record]) -> dict[str, Any]:
    name = f"recall@{bounded(experiment.split.n_items)}"
    rows = [
        {"dataset": experiment.dataset, **one._asdict(), "protocol": judged["protocol"],
         "fingerprint": judged["fingerprint"], f"recall@{CUTOFF}": judged["metrics"]["test"][name],
         "best_epoch": record.values["best_epoch"]}
        for one, record in found.items() for judged in record.judged
    ]  # fmt: skip
    mask = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": mask,
        "study.json": summaries.metrics(mask),
        "mask.json": summaries.mask_points(mask),
    }
