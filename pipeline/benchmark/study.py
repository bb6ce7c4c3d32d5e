"""Mask modality (method.md section 5) and hyperparameter sweeps of AlignRec: tables MASK and SWEEPS."""

import itertools
import json
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.benchmark import plan, summaries
from alignrec.pipeline.benchmark.cell import Cell, DatasetData, Hidden
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.benchmark.params import Benchmark, Mask, Study
from alignrec.pipeline.benchmark.settings import model_settings, sweep_params
from alignrec.pipeline.benchmark.summaries import RECALL, WHOLE
from alignrec.pipeline.combine.names import CEILINGS
from alignrec.pipeline.encode.params import MODALITIES, variant
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.evidence import mean_and_sd as spread
from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.train.params import Released

Setting = dict[str, int | float]


class Masked(NamedTuple):
    """One training with a hidden modality."""

    features: str
    modality: str  # hidden one: image, text or WHOLE for none
    ratio: float  # share of the items whose modality is hidden; 0 with WHOLE
    seed: int  # number of the run; equal numbers share initial weights and negatives


def mask_tables(experiment: Experiment) -> dict[str, Any]:
    name, mask = f"recall@{bounded_cutoff(experiment.split.n_items)}", experiment.params[Study].mask
    cells = {one: mask_cell(experiment, one) for one in mask_trainings(maskable_sets(experiment.layout), mask)}
    rows = [
        {"dataset": experiment.dataset, **one._asdict(), "protocol": judged["protocol"],
         "fingerprint": judged["fingerprint"], f"recall@{CUTOFF}": judged["metrics"]["test"][name],
         "best_epoch": record.values["best_epoch"]}
        for one, record in experiment.complete(cells, "mask").items() for judged in record.judged
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": table,
        "study.json": summaries.mask_metrics(table),
        "mask.json": summaries.mask_points(table),
    }


def maskable_sets(layout: Layout) -> list[str]:
    """Return the feature sets that also exist with each modality masked, except ceilings."""
    names = layout.feature_sets()
    return [n for n in names if n not in CEILINGS and all(variant(n, m) in names for m in MODALITIES)]


def mask_trainings(names: list[str], mask: Mask) -> list[Masked]:
    ratios = sorted({*mask.ratios} - {0.0})
    hidden = [(WHOLE, 0.0), *((modality, ratio) for modality in MODALITIES for ratio in ratios)]
    seeds = range(mask.seeds) if mask.ratios else ()
    return [Masked(name, *what, seed) for name in names for what in hidden for seed in seeds]


def mask_cell(experiment: Experiment, one: Masked) -> Cell:
    params, data = experiment.params, DatasetData.of(experiment.params, experiment.layout, one.features)
    whole = plan.run_cell(experiment, data, RELEASED, model_settings(params, RELEASED), one.seed)
    # the benchmark has trained this one
    if one.modality == WHOLE and CUTOFF in params[Benchmark].ks:
        return whole
    if one.modality != WHOLE:
        hidden = Hidden(one.modality, one.ratio, seed_for("mask", experiment.dataset))
        data = replace(data, graph=params[Graph], hidden=hidden)
    return replace(whole, data=data, ks=(bounded_cutoff(experiment.split.n_items),), opens="test")


class Swept(NamedTuple):
    """One training of a sweep."""

    sweep: str
    setting: str  # JSON: key -> value
    seed: int  # number of the run; equal numbers share initial weights and negatives


def sweep_tables(experiment: Experiment) -> dict[str, Any]:
    study, features = experiment.params[Study], experiment.params[Released].features
    cells = {
        Swept(sweep, json.dumps(setting), seed): sweep_cell(experiment, setting, seed, f"study.sweeps.{sweep}")
        for sweep in study.sweeps
        for setting in study.settings(sweep)
        for seed in range(study.seeds)
    }
    label = {"dataset": experiment.dataset, "features": features, **experiment.rules.label}
    rows = [
        {**label, **one._asdict(), RECALL: record.best.get(f"valid_{RECALL}"),
         "best_epoch": record.values["best_epoch"] or 0, "reason": record.values["reason"]}
        for one, record in experiment.complete(cells, "sweeps", tolerant=True).items()
    ]  # fmt: skip
    swept = pa.Table.from_pylist(rows, schemas.SWEEPS)
    return {"sweeps.parquet": swept, "curves.json": sweep_curves(swept), "heatmaps.json": sweep_heatmaps(swept)}


def sweep_cell(experiment: Experiment, setting: Setting, seed: int, where: str) -> Cell:
    own = sweep_params(experiment.params, setting, where)
    # a changed item graph is rebuilt in memory
    graph = own[Graph] if own[Graph] != experiment.params[Graph] else None
    data = replace(DatasetData.of(own, experiment.layout, own[Released].features), graph=graph)
    number = seed_for("sweep", experiment.dataset, RELEASED, seed)
    return Cell(data, RELEASED, model_settings(own, RELEASED), experiment.rules, number, (CUTOFF,), "valid")


def sweep_curves(table: pa.Table) -> list[dict[str, Any]]:
    rows = []
    for (sweep, setting), values in _by_setting(table).items():
        if len(changed := json.loads(setting)) == 1 and values:
            ((key, value),) = changed.items()
            figure = spread(values)
            point = {"sweep": sweep, "key": key, "value": value, RECALL: figure.mean, "sd": figure.sd}
            rows.append(point | {"seeds": len(values)})
    return sorted(rows, key=lambda row: (row["sweep"], row["value"]))


def sweep_heatmaps(table: pa.Table) -> list[dict[str, Any]]:
    by_setting = _by_setting(table)
    order = [*dict.fromkeys(sweep for sweep, _ in by_setting)]
    means: dict[tuple[int, str, float, float], list[float]] = {}
    for (sweep, setting), values in by_setting.items():
        for (x, a), (y, b) in itertools.combinations(json.loads(setting).items(), 2):
            if values:
                means.setdefault((order.index(sweep), f"{x}, {y}", float(a), float(b)), []).append(spread(values).mean)
    return [
        {"map": f"study {RELEASED} {order[sweep]}: {pair}", "settings": pair, "x": f"{x:.3g}", "y": f"{y:.3g}",
         "valid": max(found), "trials": len(found)}
        for (sweep, pair, x, y), found in sorted(means.items())
    ]  # fmt: skip


def _by_setting(table: pa.Table) -> dict[tuple[str, str], list[float]]:
    values: dict[tuple[str, str], list[float]] = {}
    for row in table.select(["sweep", "setting", RECALL]).to_pylist():  # a few thousand rows at most
        runs = values.setdefault((row["sweep"], row["setting"]), [])
        runs += [row[RECALL]] if row[RECALL] is not None else []
    return values
