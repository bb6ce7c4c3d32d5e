"""Files of the benchmark: results, slices, paired tests, tried settings, headline means and the protocol."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.benchmark import significance, slices
from alignrec.pipeline.benchmark.cell import Entry, list_runs
from alignrec.pipeline.benchmark.experiment import Experiment, Record, read_evaluation
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.benchmark.plan import Tuned
from alignrec.pipeline.evaluation.cutoff import CUTOFF, headline_cutoff
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.models.training.params import TrainSettings

PerUser = dict[
    Entry, dict[str, np.ndarray]
]  # run -> metric -> float64 [N], NaN without a target in the run's draw


def benchmark_tables(
    experiment: Experiment, found: Mapping[Entry, Record], tuned: Tuned
) -> dict[str, Any]:
    params, variants = experiment.params, experiment.rules.variants
    k = headline_cutoff(params[Benchmark].ks)
    judged: list[dict[str, Any]] = []
    sliced: list[dict[str, Any]] = []
    compared: list[tuple[dict[str, Any], PerUser]] = []
    summaries = []
    for number, protocol in enumerate(variants):
        label = {"dataset": experiment.dataset} | protocol.label
        rows = [
            label | entry._asdict() | record.values["judged"][number]
            for entry, record in found.items()
        ]
        own, per_user = _measure_runs(experiment, found, protocol.suffix)
        judged += rows
        sliced += [label | row for row in own]
        compared.append((label, per_user))
        summaries.append(label | summarise_runs(rows, k))
    metrics = {"dataset": experiment.dataset} | {s["protocol"]: s for s in summaries}
    how = {
        "budget": params[Benchmark].budget,
        "selection": f"best valid recall@{CUTOFF} of one training a setting",
    }
    searched = {"tuning": how} if tuned.tried else {}
    control, draws = params[Benchmark].control, len(experiment.draws)
    files = {
        "results.parquet": results_table(judged),
        "slices.parquet": pa.Table.from_pylist(sliced, schemas.SLICES),
        "tests.parquet": significance.paired_tests(
            compared, params[TrainSettings].features, k, control, draws
        ),
        "protocol.json": [protocol.describe() | searched for protocol in variants],
        "metrics.json": metrics if len(summaries) > 1 else summaries[0],
        "runs.json": list_runs({entry: record.key for entry, record in found.items()}),
    }
    return files | ({"tuning.parquet": tuning_table(tuned)} if tuned.tried else {})


def _measure_runs(
    experiment: Experiment, found: Mapping[Entry, Record], suffix: str
) -> tuple[list[dict[str, Any]], PerUser]:
    """Return rows of SLICES and the figures of each test user, under the protocol with this suffix."""
    rows: list[dict[str, Any]] = []
    per_user: PerUser = {}
    ks = experiment.params[Benchmark].ks
    users = np.unique(np.concatenate([split.test.users for split in experiment.splits]))
    # rankings are read one run at a time, to bound memory
    for entry, record in found.items():
        split = experiment.splits[entry.seed % len(experiment.splits)]
        evaluation = read_evaluation(record.rankings[suffix], split, ks)
        rows += [
            entry._asdict() | figure._asdict()
            for figure in slices.slice_figures(evaluation, split, ks)
        ]
        per_user[entry] = {name: np.full(len(users), np.nan) for name in significance.METRICS}
        for metric, values in per_user[entry].items():
            values[np.searchsorted(users, evaluation.users)] = evaluation.per_user[
                metric, headline_cutoff(ks)
            ]
    return rows, per_user


def results_table(judged: Iterable[dict[str, Any]]) -> pa.Table:
    rows = [
        {key: run[key] for key in run if key != "metrics"}
        | {"split": part, "metric": name.split("@")[0], "k": int(name.split("@")[1])}
        | {"selected_by": "valid", "value": value}
        for run in judged
        for part, means in run["metrics"].items()
        for name, value in means.items()
    ]
    return pa.Table.from_pylist(rows, schemas.RESULTS)


def summarise_runs(judged: Iterable[dict[str, Any]], k: int) -> dict[str, Any]:
    """Return model -> features, or "features, ablation" -> recall@k and ndcg@k -> mean and sd over seeds, on test."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in judged:
        column = f"{run['features']}, {run['ablation']}" if run["ablation"] else run["features"]
        for name in (f"recall@{k}", f"ndcg@{k}"):
            values[run["model"], column, name].append(run["metrics"]["test"][name])
    nested: dict[str, Any] = {}
    for (model, features, name), by_seed in values.items():
        figure = mean_and_sd(by_seed)
        sd = {} if figure.sd is None else {"sd": figure.sd}
        nested.setdefault(model, {}).setdefault(features, {})[name] = {"mean": figure.mean, **sd}
    return nested


def tuning_table(tuned: Tuned) -> pa.Table:
    rows = [
        {**candidate._asdict(), "trial": number, "setting": json.dumps(one.setting), "valid": one.valid,
         "chosen": one is tuned.best(candidate),
         **{key: one.record.values[key] for key in ("state", "epochs", "reason")}}
        for candidate, own in tuned.tried.items() for number, one in enumerate(own)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.TUNING)
