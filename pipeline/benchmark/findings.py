"""From finished runs to the benchmark's tables: results, slices, paired tests, headline means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.benchmark import significance, slices
from pipeline.benchmark.jobs import Job
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.metrics import Evaluation, judge
from pipeline.evaluation.protocol import Protocol
from pipeline.interactions.split import Split
from pipeline.layout import Layout


class Findings(NamedTuple):
    """The tables and the summary of a benchmark."""

    results: pa.Table
    """RESULTS"""
    slices: pa.Table
    """SLICES"""
    tests: pa.Table
    """TESTS"""
    summary: dict[str, Any]
    """dataset, protocol, fingerprint, and what `summary` returns"""


def gather(
    layout: Layout,
    records: Mapping[Job, dict[str, Any]],
    split: Split,
    ks: Sequence[int],
    protocol: Protocol,
    reference: str,
    control: str | None = None,
) -> Findings:
    """Return the tables of finished runs; `layout` has their rankings.

    Args:
        layout: of the dataset.
        records: run -> its record, in the tables' order.
        split: train, and the targets of test.
        ks: cutoffs.
        protocol: of all runs.
        reference: feature set of the AlignRec that the other runs are compared with.
        control: feature set that every other one is compared with under each model, if any.
    """
    shared = {"dataset": layout.dataset} | protocol.label
    k = headline(ks)
    sliced: list[dict[str, Any]] = []
    per_user = {}
    for job, record in records.items():  # a run's rankings at a time
        per_run = evaluation(layout, job, split, ks)
        sliced += slices.rows(named(layout.dataset, record), per_run, split, ks)
        per_user[job] = {metric: per_run.per_user[metric, k] for metric in significance.METRICS}
    return Findings(
        results(layout.dataset, records.values()),
        pa.Table.from_pylist(sliced, schemas.SLICES),
        significance.tests(shared, per_user, reference, k, control),
        shared | summary(records.values(), k),
    )  # fmt: skip


def evaluation(layout: Layout, job: Job, split: Split, ks: Sequence[int]) -> Evaluation:
    """Return a finished run's test figures by user, from its rankings."""
    rankings = io.read_table(layout.trial_rankings(*job), schemas.rankings(max(ks)))
    top = rankings["items"].combine_chunks().flatten().to_numpy().reshape(-1, max(ks))
    return judge(top, rankings["user_id"].to_numpy(), split.test, split.n_items, ks)


def named(dataset_name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that name a run in every table: dataset, job, protocol, fingerprint."""
    return {"dataset": dataset_name} | {key: record[key] for key in (*Job._fields, "protocol", "fingerprint")}


def results(dataset_name: str, records: Iterable[dict[str, Any]], selected_by: str = "valid") -> pa.Table:
    """Return records as the long table RESULTS, one row a metric, cutoff and split."""
    rows = [
        named(dataset_name, record)
        | {
            "split": part,
            "metric": name.split("@")[0],
            "k": int(name.split("@")[1]),
            "selected_by": selected_by,
            "value": value,
        }
        for record in records
        for part, means in record["metrics"].items()
        for name, value in means.items()
    ]
    return pa.Table.from_pylist(rows, schemas.RESULTS)


def summary(records: Iterable[dict[str, Any]], k: int) -> dict[str, Any]:
    """Return model -> features -> "recall@k", "ndcg@k" -> mean and, over two seeds or more, sd (n - 1); on test.

    An ablation stands beside the feature sets as "features, ablation".
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        column = f"{record['features']}, {record['ablation']}" if record["ablation"] else record["features"]
        for name in (f"recall@{k}", f"ndcg@{k}"):
            values[record["model"], column, name].append(record["metrics"]["test"][name])
    nested: dict[str, Any] = {}
    for (model, features, name), by_seed in values.items():
        figure = cell(by_seed)
        sd = {} if figure.sd is None else {"sd": figure.sd}
        nested.setdefault(model, {}).setdefault(features, {})[name] = {"mean": figure.mean, **sd}
    return nested
