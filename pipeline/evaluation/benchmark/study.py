"""Mask modality (method.md section 5) and sweeps of AlignRec: tables MASK and SWEEPS."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.evaluation.benchmark import plan
from alignrec.pipeline.evaluation.benchmark.cell import Cell, DatasetData, Hidden
from alignrec.pipeline.evaluation.benchmark.experiment import Experiment
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Study
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, sweep_params
from alignrec.pipeline.evaluation.evidence import WHOLE, Figure, mean_and_sd, summarise_mask
from alignrec.pipeline.features.names import maskable_sets
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.cutoff import CUTOFF, bounded_cutoff
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES

RECALL = f"recall@{CUTOFF}"
DECIMALS = 6
Setting = dict[str, int | float]
# (sweep, setting as JSON) -> valid recall of each run that did not fail
RecallsBySetting = Mapping[tuple[str, str], list[float]]


class MaskLabel(NamedTuple):
    """Names a training run with a hidden modality."""

    features: str
    modality: str  # hidden one: image, text or WHOLE for none
    ratio: float  # share of the items whose modality is hidden; 0 with WHOLE
    seed: int  # number of the run; equal numbers share initial weights and negatives


def mask_tables(experiment: Experiment) -> dict[str, Any]:
    cells = {label: mask_cell(experiment, label) for label in list_mask_labels(experiment)}
    metric = f"recall@{bounded_cutoff(experiment.split.n_items)}"
    rows = []
    for label, result in experiment.complete(cells, "mask").items():
        for judged in result.values["judged"]:
            row = {
                "dataset": experiment.dataset,
                "protocol": judged["protocol"],
                "fingerprint": judged["fingerprint"],
                RECALL: judged["metrics"]["test"][metric],
                "best_epoch": result.values["best_epoch"],
            }
            rows.append(row | label._asdict())

    table = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": table,
        "study.json": mask_metrics(table),
        "mask.json": mask_points(table),
    }


def list_mask_labels(experiment: Experiment) -> list[MaskLabel]:
    mask = experiment.params[Study].mask
    if not mask.ratios:
        return []
    maskable = maskable_sets(experiment.layout.feature_sets())
    if not maskable:  # the parameters name some, but no stage has made them
        raise UserError(
            f"{experiment.layout.root}: no feature set of {experiment.dataset} with each modality "
            "masked, as study.mask asks; run `dvc repro`"
        )

    masks = [(WHOLE, 0.0)]
    for modality in MODALITIES:
        masks += [(modality, ratio) for ratio in sorted({*mask.ratios} - {0.0})]
    labels = []
    for features in maskable:
        for modality, ratio in masks:
            labels += [MaskLabel(features, modality, ratio, seed) for seed in range(mask.seeds)]
    return labels


def mask_metrics(mask: pa.Table) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (protocol, fingerprint), rows in summarise_mask(mask).items():
        judged = nested.setdefault(protocol, {"fingerprint": fingerprint})
        for row in rows:
            figures = judged.setdefault(row.features, {}).setdefault(row.items, {})
            figures |= _rounded(RECALL, row.recall) | _rounded("relative_change", row.change)
    return {"mask_modality": nested}


def _rounded(name: str, figure: Figure | None) -> dict[str, float]:
    if figure is None:
        return {}
    mean = round(figure.mean, DECIMALS)
    if figure.sd is None:
        return {name: mean}
    return {name: mean, f"{name}_sd": round(figure.sd, DECIMALS)}


def mask_points(mask: pa.Table) -> list[dict[str, Any]]:
    rows = mask.to_pylist()
    has_protocols = len({row["protocol"] for row in rows}) > 1
    points = []
    for features in dict.fromkeys(row["features"] for row in rows):
        of_set = [row for row in rows if row["features"] == features]
        for modality in MODALITIES:
            # every curve starts at the full set
            for row in of_set:
                if row["modality"] in (modality, WHOLE):
                    point = {"ratio": row["ratio"], "seed": row["seed"], RECALL: row[RECALL]}
                    line = f"{features}, {modality} masked"
                    if has_protocols:
                        line += f", {row['protocol']}"
                    points.append({"line": line} | point)
    return points


def mask_cell(experiment: Experiment, label: MaskLabel) -> Cell:
    params = experiment.params
    data = DatasetData.of(params, experiment.layout, label.features)
    settings = model_settings(params, RELEASED)
    whole = plan.run_cell(experiment, data, RELEASED, settings, label.seed)
    # the benchmark has already trained this cell
    if label.modality == WHOLE and CUTOFF in params[Benchmark].ks:
        return whole

    if label.modality != WHOLE:
        hidden = Hidden(label.modality, label.ratio, seed_for("mask", experiment.dataset))
        data = replace(data, graph=params[Graph], hidden=hidden)
    return replace(whole, data=data, ks=(bounded_cutoff(experiment.split.n_items),), opens="test")


class SweepLabel(NamedTuple):
    """Names a training run of a sweep."""

    sweep: str
    setting: str  # JSON: key -> value
    seed: int  # number of the run; equal numbers share initial weights and negatives


def sweep_tables(experiment: Experiment) -> dict[str, Any]:
    cells = plan_sweeps(experiment)
    header = {
        "dataset": experiment.dataset,
        "features": experiment.params[TrainSettings].features,
        **experiment.rules.label,
    }
    rows = []
    recalls: dict[tuple[str, str], list[float]] = {}
    for label, result in experiment.complete(cells, "sweeps", tolerant=True).items():
        recall = result.values["best"].get(f"valid_{RECALL}")
        row = {
            RECALL: recall,
            "best_epoch": result.values["best_epoch"] or 0,
            "reason": result.values["reason"],
        }
        rows.append(header | label._asdict() | row)
        of_setting = recalls.setdefault((label.sweep, label.setting), [])
        if recall is not None:
            of_setting.append(recall)

    return {
        "sweeps.parquet": pa.Table.from_pylist(rows, schemas.SWEEPS),
        "curves.json": sweep_curves(recalls),
        "heatmaps.json": sweep_heatmaps(recalls),
    }


def plan_sweeps(experiment: Experiment) -> dict[SweepLabel, Cell]:
    study = experiment.params[Study]
    cells = {}
    for sweep in study.sweeps:
        for setting in study.settings(sweep):
            for seed in range(study.seeds):
                label = SweepLabel(sweep, json.dumps(setting), seed)
                cells[label] = sweep_cell(experiment, setting, seed, f"study.sweeps.{sweep}")
    return cells


def sweep_cell(experiment: Experiment, setting: Setting, number: int, where: str) -> Cell:
    params = sweep_params(experiment.params, setting, where)
    data = DatasetData.of(params, experiment.layout, params[TrainSettings].features)
    # a changed item graph is rebuilt in memory
    if params[Graph] != experiment.params[Graph]:
        data = replace(data, graph=params[Graph])
    settings = model_settings(params, RELEASED)
    seed = seed_for("sweep", experiment.dataset, RELEASED, number)
    return Cell(data, RELEASED, settings, experiment.rules, seed, (CUTOFF,), "valid")


def sweep_curves(recalls: RecallsBySetting) -> list[dict[str, Any]]:
    points = []
    for (sweep, setting), values in recalls.items():
        changed = json.loads(setting)
        if len(changed) != 1 or not values:
            continue
        ((key, value),) = changed.items()
        figure = mean_and_sd(values)
        point = {"sweep": sweep, "key": key, "value": value, RECALL: figure.mean}
        points.append(point | {"sd": figure.sd, "seeds": len(values)})
    return sorted(points, key=lambda point: (point["sweep"], point["value"]))


def sweep_heatmaps(recalls: RecallsBySetting) -> list[dict[str, Any]]:
    """Return a square per pair of values of two keys: its highest mean over all other keys."""
    order = [*dict.fromkeys(sweep for sweep, _ in recalls)]
    means: dict[tuple[int, str, float, float], list[float]] = {}
    for (sweep, setting), values in recalls.items():
        if not values:
            continue
        mean = mean_and_sd(values).mean
        for (x, x_value), (y, y_value) in itertools.combinations(json.loads(setting).items(), 2):
            place = (order.index(sweep), f"{x}, {y}", float(x_value), float(y_value))
            means.setdefault(place, []).append(mean)

    squares = []
    for (number, pair, x_value, y_value), of_square in sorted(means.items()):
        square = {
            "map": f"study {RELEASED} {order[number]}: {pair}",
            "settings": pair,
            "x": f"{x_value:.3g}",
            "y": f"{y_value:.3g}",
            "valid": max(of_square),
            "trials": len(of_square),
        }
        squares.append(square)
    return squares
