"""Files of the benchmark: results, slices, paired tests, tried settings, means and the protocol."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.evaluation.benchmark import significance, slices
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, list_runs
from alignrec.pipeline.evaluation.benchmark.experiment import (
    CellResult,
    Experiment,
    read_evaluation,
)
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.benchmark.plan import Tuned
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.models.cutoff import CUTOFF, headline_cutoff
from alignrec.pipeline.models.training.params import TrainSettings

# label of a run -> metric -> float64 [N], NaN for users without a target in the run's draw
PerUser = dict[CellLabel, dict[str, np.ndarray]]
Results = Mapping[CellLabel, CellResult]


def benchmark_tables(experiment: Experiment, results: Results, tuned: Tuned) -> dict[str, Any]:
    benchmark = experiment.params[Benchmark]
    variants = experiment.rules.variants
    k = headline_cutoff(benchmark.ks)

    judged: list[dict[str, Any]] = []
    sliced: list[dict[str, Any]] = []
    compared: list[tuple[dict[str, Any], PerUser]] = []
    summaries = []
    for number, protocol in enumerate(variants):
        header = {"dataset": experiment.dataset} | protocol.label
        rows = [
            header | label._asdict() | result.values["judged"][number]
            for label, result in results.items()
        ]
        figures, per_user = _measure_runs(experiment, results, protocol.suffix)
        judged += rows
        sliced += [header | figure for figure in figures]
        compared.append((header, per_user))
        summaries.append(header | summarise_runs(rows, k))

    reference = experiment.params[TrainSettings].features
    draws = len(experiment.draws)
    tests = significance.paired_tests(compared, reference, k, benchmark.control, draws)
    by_protocol = {summary["protocol"]: summary for summary in summaries}
    metrics = {"dataset": experiment.dataset} | by_protocol
    protocols = [protocol.describe() for protocol in variants]
    files = {
        "results.parquet": results_table(judged),
        "slices.parquet": pa.Table.from_pylist(sliced, schemas.SLICES),
        "tests.parquet": tests,
        "protocol.json": protocols,
        "metrics.json": metrics if len(summaries) > 1 else summaries[0],
        "runs.json": list_runs({label: result.key for label, result in results.items()}),
    }
    return files | tuning_files(tuned, protocols, benchmark.budget)


def tuning_files(tuned: Tuned, protocols: list[dict[str, Any]], budget: int) -> dict[str, Any]:
    """Return the table of tried settings, and the protocols with how a setting was selected."""
    if not tuned.tried:
        return {}
    tuning = {
        "budget": budget,
        "selection": f"best valid recall@{CUTOFF} of one training a setting",
    }
    return {
        "tuning.parquet": tuning_table(tuned),
        "protocol.json": [protocol | {"tuning": tuning} for protocol in protocols],
    }


def _measure_runs(
    experiment: Experiment, results: Results, suffix: str
) -> tuple[list[dict[str, Any]], PerUser]:
    """Return rows of SLICES and figures of each test user, under the protocol with this suffix."""
    ks = experiment.params[Benchmark].ks
    k = headline_cutoff(ks)
    users = np.unique(np.concatenate([split.test.users for split in experiment.splits]))

    rows: list[dict[str, Any]] = []
    per_user: PerUser = {}
    # rankings are read one run at a time, to bound memory
    for label, result in results.items():
        split = experiment.splits[label.seed % len(experiment.splits)]
        evaluation = read_evaluation(result.rankings[suffix], split, ks)
        figures = slices.slice_figures(evaluation, split, ks)
        rows += [label._asdict() | figure._asdict() for figure in figures]

        positions = np.searchsorted(users, evaluation.users)
        per_user[label] = {}
        for metric in significance.TESTED_METRICS:
            values = np.full(len(users), np.nan)
            values[positions] = evaluation.per_user[metric, k]
            per_user[label][metric] = values
    return rows, per_user


def results_table(judged: Iterable[dict[str, Any]]) -> pa.Table:
    rows = []
    for run in judged:
        header = {key: value for key, value in run.items() if key != "metrics"}
        header["selected_by"] = "valid"
        for part, means in run["metrics"].items():
            for name, mean in means.items():
                metric, k = name.split("@")
                row = {"split": part, "metric": metric, "k": int(k), "value": mean}
                rows.append(header | row)
    return pa.Table.from_pylist(rows, schemas.RESULTS)


def summarise_runs(judged: Iterable[dict[str, Any]], k: int) -> dict[str, Any]:
    """Return model -> features -> recall@k and ndcg@k -> mean and sd over seeds, on test.

    An ablation has the key "features, ablation".
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in judged:
        column = f"{run['features']}, {run['ablation']}" if run["ablation"] else run["features"]
        for name in (f"recall@{k}", f"ndcg@{k}"):
            values[run["model"], column, name].append(run["metrics"]["test"][name])

    nested: dict[str, Any] = {}
    for (model, features, name), by_seed in values.items():
        figure = mean_and_sd(by_seed)
        summary = {"mean": figure.mean}
        if figure.sd is not None:
            summary["sd"] = figure.sd
        nested.setdefault(model, {}).setdefault(features, {})[name] = summary
    return nested


def tuning_table(tuned: Tuned) -> pa.Table:
    rows = []
    for candidate, trials in tuned.tried.items():
        best = tuned.best(candidate)
        for number, trial in enumerate(trials):
            values = trial.result.values
            row = {
                "trial": number,
                "setting": json.dumps(trial.setting),
                "valid": trial.valid,
                "chosen": trial is best,
                "state": values["state"],
                "epochs": values["epochs"],
                "reason": values["reason"],
            }
            rows.append(candidate._asdict() | row)
    return pa.Table.from_pylist(rows, schemas.TUNING)
