"""Tables of the benchmark: results, slices, paired tests, tried settings; headline means and the protocol."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.benchmark import runs
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import Entry
from pipeline.benchmark.settings import search_ranges
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.protocol import Protocol
from pipeline.experiment.plans.tuning import Tuned
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.experiment.tables import significance, slices
from pipeline.train.params import Released


class _Judged(NamedTuple):
    """Runs under one protocol."""

    rows: list[dict[str, Any]]  # the run, protocol, fingerprint, metrics
    slices: list[dict[str, Any]]
    per_user: dict[Entry, dict[str, np.ndarray]]


def table(experiment: Experiment, found: Mapping[Entry, Record], tuned: Tuned) -> dict[str, Any]:
    params, variants, dataset = experiment.params, experiment.rules.variants, experiment.dataset
    under = [_under(experiment, found, number, protocol) for number, protocol in enumerate(variants)]
    labels = [{"dataset": dataset} | protocol.label for protocol in variants]
    k, reference = headline(params[Benchmark].ks), params[Released].features
    compared = [(label, one.per_user) for label, one in zip(labels, under, strict=True)]
    summaries = [label | summary(one.rows, k) for label, one in zip(labels, under, strict=True)]
    metrics = summaries[0] if len(summaries) == 1 else {"dataset": dataset} | {s["protocol"]: s for s in summaries}
    files = {
        "results.parquet": results(dataset, [row for one in under for row in one.rows]),
        "slices.parquet": pa.Table.from_pylist([row for one in under for row in one.slices], schemas.SLICES),
        "tests.parquet": significance.tests(compared, reference, k, params[Benchmark].control, len(experiment.draws)),
        "protocol.json": [protocol.described() | described(tuned, params) for protocol in variants],
        "metrics.json": metrics | _settings(tuned),
        "runs.json": runs.listed({entry: record.key for entry, record in found.items()}),
    }
    return files | ({"tuning.parquet": tried(tuned)} if tuned.tried else {})


def _under(experiment: Experiment, found: Mapping[Entry, Record], number: int, protocol: Protocol) -> _Judged:
    under, ks = _Judged([], [], {}), experiment.params[Benchmark].ks
    users = np.unique(np.concatenate([split.test.users for split in experiment.splits]))
    for entry, record in found.items():  # a run's rankings at a time
        split = experiment.splits[entry.seed % len(experiment.splits)]
        row = entry._asdict() | record.judged[number]
        evaluation = record.evaluation(protocol.suffix, split, ks)
        under.rows.append(row)
        under.slices.extend(slices.rows(named(experiment.dataset, row), evaluation, split, ks))
        under.per_user[entry] = {
            metric: _of(users, evaluation, evaluation.per_user[metric, headline(ks)]) for metric in significance.METRICS
        }
    return under


def _of(users: np.ndarray, evaluation: Evaluation, values: np.ndarray) -> np.ndarray:
    """Return figures of all test users, float64 [N], NaN without a target."""
    out = np.full(len(users), np.nan)
    out[np.searchsorted(users, evaluation.users)] = values
    return out


def named(dataset_name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"dataset": dataset_name} | {key: row[key] for key in (*Entry._fields, "protocol", "fingerprint")}


def results(dataset_name: str, judged: Iterable[dict[str, Any]]) -> pa.Table:
    rows = [
        named(dataset_name, run)
        | {"split": part, "metric": name.split("@")[0], "k": int(name.split("@")[1])}
        | {"selected_by": "valid", "value": value}
        for run in judged
        for part, means in run["metrics"].items()
        for name, value in means.items()
    ]
    return pa.Table.from_pylist(rows, schemas.RESULTS)


def summary(judged: Iterable[dict[str, Any]], k: int) -> dict[str, Any]:
    """Return model -> features, or "features, ablation" -> recall@k, ndcg@k -> mean and, over seeds, sd, on test."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in judged:
        column = f"{run['features']}, {run['ablation']}" if run["ablation"] else run["features"]
        for name in (f"recall@{k}", f"ndcg@{k}"):
            values[run["model"], column, name].append(run["metrics"]["test"][name])
    nested: dict[str, Any] = {}
    for (model, features, name), by_seed in values.items():
        figure = cell(by_seed)
        sd = {} if figure.sd is None else {"sd": figure.sd}
        nested.setdefault(model, {}).setdefault(features, {})[name] = {"mean": figure.mean, **sd}
    return nested


def tried(tuned: Tuned) -> pa.Table:
    chosen = tuned.chosen
    rows = [
        {**contender._asdict(), "trial": one.number, "state": one.state,
         "setting": json.dumps(one.setting), "epochs": one.epochs, "valid": one.valid,
         "chosen": one is chosen[contender], "reason": one.reason}
        for contender, own in tuned.tried.items() for one in own
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.TUNING)


def described(tuned: Tuned, params: Parameters) -> dict[str, Any]:
    if not tuned.tried:
        return {}
    spaces = {model: search_ranges(params, model) for model, _ in tuned.tried}
    return {
        "tuning": {
            "budget": params[Benchmark].budget,
            "selection": f"best valid recall@{CUTOFF} of one training a setting",
            "spaces": {m: {key: r.model_dump() for key, r in ranges.items()} for m, ranges in spaces.items()},
            "chosen": [
                {**contender._asdict(), "tried": len(tuned.tried[contender])}
                | {"number": one.number, "setting": one.setting, "valid": one.valid}
                for contender, one in tuned.chosen.items()
            ],
        }
    }


def _settings(tuned: Tuned) -> dict[str, Any]:
    nested: dict[str, dict[str, Any]] = {}
    for (model, features), one in tuned.chosen.items():
        nested.setdefault(model, {})[features] = one.setting
    return {"settings": nested} if nested else {}
