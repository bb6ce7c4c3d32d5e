"""Mask modality (method.md section 5) and hyperparameter sweeps of AlignRec: tables MASK and SWEEPS."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.benchmark import plan
from alignrec.pipeline.benchmark.cell import Cell, DatasetData, Hidden
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.benchmark.params import Benchmark, Study
from alignrec.pipeline.benchmark.settings import model_settings, sweep_params
from alignrec.pipeline.evaluation.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.evaluation.evidence import WHOLE, group_values, mean_and_sd, summarise_mask
from alignrec.pipeline.features.names import maskable_sets
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES

RECALL = f"recall@{CUTOFF}"
DIGITS = 6  # decimal places
Setting = dict[str, int | float]
BySetting = Mapping[
    tuple[str, str], list[float]
]  # (sweep, setting as JSON) -> valid recall of each run


class Masked(NamedTuple):
    """One training run with a hidden modality."""

    features: str
    modality: str  # hidden one: image, text or WHOLE for none
    ratio: float  # share of the items whose modality is hidden; 0 with WHOLE
    seed: int  # number of the run; equal numbers share initial weights and negatives


def mask_tables(experiment: Experiment) -> dict[str, Any]:
    name, mask = f"recall@{bounded_cutoff(experiment.split.n_items)}", experiment.params[Study].mask
    hidden = [
        (WHOLE, 0.0),
        *((modality, ratio) for modality in MODALITIES for ratio in sorted({*mask.ratios} - {0.0})),
    ]
    maskable = maskable_sets(experiment.layout.feature_sets())
    if mask.ratios and not maskable:  # the parameters name some, but no stage has made them
        lacking = f"no feature set of {experiment.dataset} with each modality masked"
        raise UserError(f"{experiment.layout.root}: {lacking}, as study.mask asks; run `dvc repro`")

    trainings = [
        Masked(features, *what, seed)
        for features in maskable
        for what in hidden
        for seed in range(mask.seeds if mask.ratios else 0)
    ]
    cells = {one: mask_cell(experiment, one) for one in trainings}
    rows = [
        {"dataset": experiment.dataset, **one._asdict(), "protocol": judged["protocol"],
         "fingerprint": judged["fingerprint"], f"recall@{CUTOFF}": judged["metrics"]["test"][name],
         "best_epoch": record.values["best_epoch"]}
        for one, record in experiment.complete(cells, "mask").items() for judged in record.values["judged"]
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": table,
        "study.json": mask_metrics(table),
        "mask.json": mask_points(table),
    }


def mask_metrics(mask: pa.Table) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (protocol, fingerprint), rows in summarise_mask(mask).items():
        judged = nested.setdefault(protocol, {"fingerprint": fingerprint})
        for row in rows:
            figures = judged.setdefault(row.features, {}).setdefault(row.items, {})
            for name, figure in ((RECALL, row.recall), ("relative_change", row.change)):
                if figure is not None:
                    figures[name] = round(figure.mean, DIGITS)
                    figures |= {} if figure.sd is None else {f"{name}_sd": round(figure.sd, DIGITS)}
    return {"mask_modality": nested}


def mask_points(mask: pa.Table) -> list[dict[str, Any]]:
    read = mask.to_pylist()
    names = dict.fromkeys(row["features"] for row in read)
    # every curve starts at the full set
    rows = [(name, modality, row) for name in names for modality in MODALITIES for row in read
            if row["features"] == name and row["modality"] in (modality, WHOLE)]  # fmt: skip
    several = len({row["protocol"] for row in read}) > 1
    return [
        {"line": f"{name}, {modality} masked" + (f", {row['protocol']}" if several else ""), "ratio": row["ratio"],
         "seed": row["seed"], RECALL: row[RECALL]}
        for name, modality, row in rows
    ]  # fmt: skip


def mask_cell(experiment: Experiment, one: Masked) -> Cell:
    params, data = (
        experiment.params,
        DatasetData.of(experiment.params, experiment.layout, one.features),
    )
    whole = plan.run_cell(experiment, data, RELEASED, model_settings(params, RELEASED), one.seed)
    # the benchmark has already trained this entry
    if one.modality == WHOLE and CUTOFF in params[Benchmark].ks:
        return whole
    if one.modality != WHOLE:
        hidden = Hidden(one.modality, one.ratio, seed_for("mask", experiment.dataset))
        data = replace(data, graph=params[Graph], hidden=hidden)
    return replace(whole, data=data, ks=(bounded_cutoff(experiment.split.n_items),), opens="test")


class Swept(NamedTuple):
    """One training run of a sweep."""

    sweep: str
    setting: str  # JSON: key -> value
    seed: int  # number of the run; equal numbers share initial weights and negatives


def sweep_tables(experiment: Experiment) -> dict[str, Any]:
    study, features = experiment.params[Study], experiment.params[TrainSettings].features
    cells = {
        Swept(sweep, json.dumps(setting), seed): sweep_cell(
            experiment, setting, seed, f"study.sweeps.{sweep}"
        )
        for sweep in study.sweeps
        for setting in study.settings(sweep)
        for seed in range(study.seeds)
    }
    label = {"dataset": experiment.dataset, "features": features, **experiment.rules.label}
    rows = [
        {**label, **one._asdict(), RECALL: record.values["best"].get(f"valid_{RECALL}"),
         "best_epoch": record.values["best_epoch"] or 0, "reason": record.values["reason"]}
        for one, record in experiment.complete(cells, "sweeps", tolerant=True).items()
    ]  # fmt: skip
    swept = pa.Table.from_pylist(rows, schemas.SWEEPS)
    runs = group_values(((row["sweep"], row["setting"]), row[RECALL]) for row in rows)
    by_setting = {
        setting: [value for value in values if value is not None]
        for setting, values in runs.items()
    }
    curves, heatmaps = sweep_curves(by_setting), sweep_heatmaps(by_setting)
    return {"sweeps.parquet": swept, "curves.json": curves, "heatmaps.json": heatmaps}


def sweep_cell(experiment: Experiment, setting: Setting, seed: int, where: str) -> Cell:
    own = sweep_params(experiment.params, setting, where)
    # a changed item graph is rebuilt in memory
    graph = own[Graph] if own[Graph] != experiment.params[Graph] else None
    data = replace(DatasetData.of(own, experiment.layout, own[TrainSettings].features), graph=graph)
    number = seed_for("sweep", experiment.dataset, RELEASED, seed)
    return Cell(
        data, RELEASED, model_settings(own, RELEASED), experiment.rules, number, (CUTOFF,), "valid"
    )


def sweep_curves(by_setting: BySetting) -> list[dict[str, Any]]:
    rows = []
    for (sweep, setting), values in by_setting.items():
        if len(changed := json.loads(setting)) == 1 and values:
            ((key, value),) = changed.items()
            figure = mean_and_sd(values)
            point = {
                "sweep": sweep,
                "key": key,
                "value": value,
                RECALL: figure.mean,
                "sd": figure.sd,
            }
            rows.append(point | {"seeds": len(values)})
    return sorted(rows, key=lambda row: (row["sweep"], row["value"]))


def sweep_heatmaps(by_setting: BySetting) -> list[dict[str, Any]]:
    order = [*dict.fromkeys(sweep for sweep, _ in by_setting)]
    means: dict[tuple[int, str, float, float], list[float]] = {}
    for (sweep, setting), values in by_setting.items():
        for (x, a), (y, b) in itertools.combinations(json.loads(setting).items(), 2):
            if values:
                means.setdefault((order.index(sweep), f"{x}, {y}", float(a), float(b)), []).append(
                    mean_and_sd(values).mean
                )
    return [
        {"map": f"study {RELEASED} {order[sweep]}: {pair}", "settings": pair, "x": f"{x:.3g}", "y": f"{y:.3g}",
         "valid": max(found), "trials": len(found)}
        for (sweep, pair, x, y), found in sorted(means.items())
    ]  # fmt: skip
