"""Mask modality (method.md section 5): AlignRec retrained with one modality of some items hidden; table MASK."""

from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline.benchmark import plan, summaries
from pipeline.benchmark.cell import Cell, Hidden, Stored
from pipeline.benchmark.experiment import Experiment
from pipeline.benchmark.params import Benchmark, Mask, Study
from pipeline.benchmark.settings import model_settings
from pipeline.benchmark.summaries import WHOLE
from pipeline.combine.names import CEILINGS
from pipeline.encode.params import MODALITIES, variant
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.seeds import seed_for


class Masked(NamedTuple):
    """One training."""

    features: str
    modality: str  # that is hidden: image, text or WHOLE
    ratio: float  # share of the items whose modality is hidden; 0 with WHOLE
    seed: int  # number of the run; equal numbers start from equal weights and draw equal negatives


def tables(experiment: Experiment) -> dict[str, Any]:
    name, mask = f"recall@{bounded(experiment.split.n_items)}", experiment.params[Study].mask
    cells = {one: cell(experiment, one) for one in trainings(maskable(experiment.layout), mask)}
    rows = [
        {"dataset": experiment.dataset, **one._asdict(), "protocol": judged["protocol"],
         "fingerprint": judged["fingerprint"], f"recall@{CUTOFF}": judged["metrics"]["test"][name],
         "best_epoch": record.values["best_epoch"]}
        for one, record in experiment.complete(cells, "mask").items() for judged in record.judged
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": table,
        "study.json": summaries.metrics(table),
        "mask.json": summaries.mask_points(table),
    }


def maskable(layout: Layout) -> list[str]:
    """Return the feature sets that also exist with each modality hidden, without ceilings, sorted."""
    names = layout.feature_sets()
    return [n for n in names if n not in CEILINGS and all(variant(n, m) in names for m in MODALITIES)]


def trainings(names: list[str], mask: Mask) -> list[Masked]:
    ratios = sorted({*mask.ratios} - {0.0})
    hidden = [(WHOLE, 0.0), *((modality, ratio) for modality in MODALITIES for ratio in ratios)]
    seeds = range(mask.seeds) if mask.ratios else ()
    return [Masked(name, *what, seed) for name in names for what in hidden for seed in seeds]


def cell(experiment: Experiment, one: Masked) -> Cell:
    """Return the cell of a training; that of a whole set is the benchmark's own."""
    params, data = experiment.params, Stored.of(experiment.params, experiment.layout, one.features)
    whole = plan.cell(experiment, data, RELEASED, model_settings(params, RELEASED), one.seed)
    if one.modality == WHOLE and CUTOFF in params[Benchmark].ks:
        return whole
    if one.modality != WHOLE:
        hidden = Hidden(one.modality, one.ratio, seed_for("mask", experiment.dataset))
        data = replace(data, graph=params[Graph], hidden=hidden)
    return replace(whole, data=data, ks=(bounded(experiment.split.n_items),), opens="test")
