"""Sweeps: AlignRec with other settings, item graphs and encoders. Valid alone is looked at, test stays closed.

A setting that stands in several sweeps is trained once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.benchmark import sweep as effects
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.settings import model_settings
from pipeline.benchmark.study import Outcome
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch, prepared, teachers
from pipeline.study.params import Study
from pipeline.study.settings import sweep_params
from pipeline.train import inputs
from pipeline.train.loop import fit
from pipeline.train.params import Released

RECALL = f"recall@{CUTOFF}"
Setting = dict[str, int | float]


class Point(NamedTuple):
    """One setting, with all that its trainings depend on."""

    params: Parameters
    """with the setting in place"""
    data: Layout
    """where its features lie: the dataset's, or a branch with an encoder of its own"""
    rebuilt: bool
    """whether the item graph is searched anew, in memory"""

    @property
    def features(self) -> str:
        """The feature set that AlignRec reads."""
        return self.params[Released].features

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies it: settings of AlignRec, of the graph if it is rebuilt, and of an encoder of its own."""
        own = self.params[Pretrain].model_dump(mode="json") if isinstance(self.data, Branch) else None
        graph = self.params[Graph].model_dump() if self.rebuilt else None
        return {"train": model_settings(self.params, RELEASED).model_dump(), "graph": graph, "pretrain": own}

    @property
    def name(self) -> str:
        """Sixteen hex digits, equal for equal trainings."""
        return _digest(self.facts)


class SweepJob(NamedTuple):
    """One training."""

    point: Point
    seed: int
    """number of the run; equal numbers start from equal weights and draw equal negatives"""


def study(run: Run, rules: Protocol) -> list[Path]:
    """Train what has no record yet, write table SWEEPS and what `dvc plots` draws; return the files of this part.

    Args:
        run: of the stage.
        rules: name the split on which valid is judged.
    """
    params, layout = run.params, run.layout
    planned = [
        (sweep, setting, point(params, layout, setting, f"study.sweeps.{sweep}"))
        for sweep in params[Study].sweeps
        for setting in params[Study].settings(sweep)
    ]
    points = {one.name: one for _, _, one in planned}
    made = _encoded(run, list(points.values()))
    records = _trained(run, rules, points)
    rows = [
        {"dataset": run.dataset, "sweep": sweep, "features": one.features, "setting": json.dumps(setting)}
        | rules.label
        | {key: io.read_json(records[one.name, seed])[key] for key in ("seed", RECALL, "best_epoch", "reason")}
        for sweep, setting, one in planned
        for seed in range(params[Study].seeds)
    ]
    table = pa.Table.from_pylist(rows, schemas.SWEEPS)
    run.write(table, layout.study("sweeps"), schemas.SWEEPS)
    io.write_json(layout.study_plot("curves"), curves(table))
    io.write_json(layout.study_plot("heatmaps"), heatmaps(table))
    plots = [layout.study_plot(name) for name in ("curves", "heatmaps")]
    return [layout.study("sweeps"), *plots, *made, *records.values()]


def point(params: Parameters, layout: Layout, setting: Setting, where: str) -> Point:
    """Return a setting of the sweep at path `where`, with where its features lie."""
    own = sweep_params(params, setting, where)
    if own[Pretrain] == params[Pretrain]:
        return Point(own, layout, own[Graph] != params[Graph])
    name = _digest(own[Pretrain].model_dump(mode="json"))
    return Point(own, Branch(layout.root, layout.dataset, f"encoders/{name}", own[Pretrain].seed), True)


def _encoded(run: Run, points: Sequence[Point]) -> list[Path]:
    """Pre-train and encode what settings of `pretrain` need; return the files."""
    branches = {one.data: one for one in points if isinstance(one.data, Branch)}
    made = [path for branch, one in branches.items() for path in prepared(run, one.params, branch, [one.features], [])]
    shutil.rmtree(teachers(run.layout), ignore_errors=True)
    return made


def _trained(run: Run, rules: Protocol, points: Mapping[str, Point]) -> dict[tuple[str, int], Path]:
    """Train AlignRec where there is no record yet; return the records by setting and seed."""
    params, layout = run.params, run.layout
    for name, one in points.items():
        tables = [layout.interactions, layout.users, layout.item_ids]
        graph = [] if one.rebuilt else [layout.edges(one.features)]
        files = [*tables, *graph, *io.shards(one.data.features(one.features), "features")]
        parts = params[Benchmark].modalities.get(one.features, [])
        modules = [MODELS.module(RELEASED), "pipeline.train.loop", "pipeline.graph.neighbours"]
        run.resume(layout.study_runs("sweeps") / name, files, rules.fingerprint, one.facts, parts, modules=modules)
    jobs = {(name, seed): SweepJob(one, seed) for name, one in points.items() for seed in range(params[Study].seeds)}
    records = {key: layout.study_runs("sweeps") / key[0] / f"{key[1]}.json" for key in jobs}
    todo = [job for key, job in jobs.items() if not records[key].exists()]
    trained = engine.each(trial, todo, params[Study].workers)
    for job, record in run.progress(trained, total=len(todo), unit="run", what="sweeps") if todo else ():
        io.write_json(records[job.point.name, job.seed], record)
    return records


def trial(job: SweepJob) -> dict[str, Any]:
    """Train AlignRec with one setting; return seed, valid Recall@20 and best epoch.

    Of a loss that diverges Recall@20 is null, with the reason.
    """
    one, params, layout = job.point, job.point.params, job.point.data
    split = inputs.read(layout, None).split
    vectors = io.matrix(io.read_features(layout.features(one.features))["vector"])
    if one.rebuilt:
        edges = neighbours.of_params(vectors, params[Graph])
    else:
        edges = io.read_table(layout.edges(one.features), schemas.EDGES)
    parts = params[Benchmark].modalities.get(one.features, [])
    seed = seed_for("sweep", layout.dataset, RELEASED, job.seed)  # as `alignrec sweep` has it
    try:
        fitted = fit(MODELS[RELEASED], split, vectors, edges, model_settings(params, RELEASED), seed, parts=parts)
    except UserError as e:
        return {"seed": job.seed, RECALL: None, "best_epoch": 0, "reason": str(e)}
    return {"seed": job.seed, RECALL: fitted.valid[RECALL], "best_epoch": fitted.best_epoch, "reason": ""}


def curves(table: pa.Table) -> list[dict[str, Any]]:
    """Return the points of the sweeps of one key: sweep, key, value, mean and sd of valid Recall@20, and seeds."""
    rows = []
    for (sweep, setting), values in _by_setting(table).items():
        if len(changed := json.loads(setting)) == 1 and values:
            ((key, value),) = changed.items()
            figure = cell(values)
            rows.append({"sweep": sweep, "key": key, "value": value, RECALL: figure.mean, "sd": figure.sd})
            rows[-1]["seeds"] = len(values)
    return sorted(rows, key=lambda row: (row["sweep"], row["value"]))


def heatmaps(table: pa.Table) -> list[dict[str, Any]]:
    """Return the best mean over seeds at each pair of values of two keys, as `alignrec sweep` gives it to `dvc plots`.

    Of more than two keys every pair has a map.
    """
    by_sweep: dict[str, list[tuple[Setting, Outcome]]] = {}
    for number, ((sweep, setting), values) in enumerate(_by_setting(table).items()):
        mean = cell(values).mean if values else None
        outcome = Outcome(number, "complete" if values else "failed", [], 0, mean)
        by_sweep.setdefault(sweep, []).append((json.loads(setting), outcome))
    maps = {}
    for sweep, outcomes in by_sweep.items():
        space = {key: list(dict.fromkeys(setting[key] for setting, _ in outcomes)) for key in outcomes[0][0]}
        maps["study", RELEASED, sweep] = effects.effects(outcomes, space)
    return effects.heatmaps(maps)


def _by_setting(table: pa.Table) -> dict[tuple[str, str], list[float]]:
    """Return sweep and setting -> valid Recall@20 of the runs that ended, in the table's order."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in table.select(["sweep", "setting", RECALL]).to_pylist():  # a few thousand rows at most
        runs = values.setdefault((row["sweep"], row["setting"]), [])
        runs += [row[RECALL]] if row[RECALL] is not None else []
    return values


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
