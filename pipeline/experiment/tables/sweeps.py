"""Sweeps: AlignRec with other settings, item graphs and encoders, on valid only; table SWEEPS, curves and heat maps."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.evidence import cell
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch, prepared
from pipeline.study.params import Study
from pipeline.study.settings import sweep_params
from pipeline.study.summaries import RECALL
from pipeline.train.params import Released

Setting = dict[str, int | float]


class Swept(NamedTuple):
    """One training."""

    sweep: str
    setting: str  # JSON: key -> value
    seed: int  # number of the run; equal numbers start from equal weights and draw equal negatives


class Point(NamedTuple):
    """A setting and the inputs of its trainings."""

    params: Parameters  # with the setting in place
    data: Layout  # where its features lie: the dataset's, or a branch with an encoder of its own
    rebuilt: bool  # whether the item graph is rebuilt, in memory

    @property
    def features(self) -> str:
        return self.params[Released].features


def plan(experiment: Experiment) -> dict[Swept, Cell]:
    params, layout = experiment.params, experiment.layout
    points = {
        (sweep, json.dumps(setting)): point(params, layout, setting, f"study.sweeps.{sweep}")
        for sweep in params[Study].sweeps
        for setting in params[Study].settings(sweep)
    }
    branches = {one.data: one for one in points.values() if isinstance(one.data, Branch)}
    for branch, one in branches.items():
        experiment.made += prepared(experiment.run, one.params, branch, [one.features], [])
    cells = {
        Swept(*name, seed): plan_cell(experiment, one, seed)
        for name, one in points.items()
        for seed in range(params[Study].seeds)
    }
    experiment.complete(cells, "sweeps", tolerant=True)
    return cells


def plan_cell(experiment: Experiment, one: Point, seed: int) -> Cell:
    graph = one.params[Graph] if one.rebuilt else None
    data = replace(Stored.of(one.params, one.data, one.features), graph=graph)
    number = seed_for("sweep", experiment.dataset, RELEASED, seed)
    return Cell(data, RELEASED, model_settings(one.params, RELEASED), experiment.rules, number, (CUTOFF,), "valid")


def point(params: Parameters, layout: Layout, setting: Setting, where: str) -> Point:
    own = sweep_params(params, setting, where)
    if own[Pretrain] == params[Pretrain]:
        return Point(own, layout, own[Graph] != params[Graph])
    name = _digest(own[Pretrain].model_dump(mode="json"))
    return Point(own, Branch(layout.root, layout.dataset, f"encoders/{name}", own[Pretrain].seed), True)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def table(experiment: Experiment, found: Mapping[Swept, Record]) -> dict[str, Any]:
    label = {"dataset": experiment.dataset, "features": experiment.params[Released].features, **experiment.rules.label}
    rows = [
        {**label, **one._asdict(), RECALL: record.best.get(f"valid_{RECALL}"),
         "best_epoch": record.values["best_epoch"] or 0, "reason": record.values["reason"]}
        for one, record in found.items()
    ]  # fmt: skip
    swept = pa.Table.from_pylist(rows, schemas.SWEEPS)
    return {"sweeps.parquet": swept, "curves.json": curves(swept), "heatmaps.json": heatmaps(swept)}


def curves(table: pa.Table) -> list[dict[str, Any]]:
    """Return the points of one-key sweeps: sweep, key, value, mean and sd of valid Recall@20, and seeds."""
    rows = []
    for (sweep, setting), values in _by_setting(table).items():
        if len(changed := json.loads(setting)) == 1 and values:
            ((key, value),) = changed.items()
            figure = cell(values)
            rows.append({"sweep": sweep, "key": key, "value": value, RECALL: figure.mean, "sd": figure.sd})
            rows[-1]["seeds"] = len(values)
    return sorted(rows, key=lambda row: (row["sweep"], row["value"]))


def heatmaps(table: pa.Table) -> list[dict[str, Any]]:
    """Return the best mean over seeds at each pair of values, a map per pair of keys.

    Rows: map ("study alignrec <sweep>: train.lr, train.cca"), settings, x and y (values), valid, trials.
    """
    by_setting = _by_setting(table)
    order = [*dict.fromkeys(sweep for sweep, _ in by_setting)]
    means: dict[tuple[int, str, float, float], list[float]] = {}
    for (sweep, setting), values in by_setting.items():
        for (x, a), (y, b) in itertools.combinations(json.loads(setting).items(), 2):
            if values:
                means.setdefault((order.index(sweep), f"{x}, {y}", float(a), float(b)), []).append(cell(values).mean)
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
