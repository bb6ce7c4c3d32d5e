"""From finished runs to the benchmark's tables: results, slices, paired tests, headline means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
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
    """dataset, protocol, fingerprint, and what `summary` returns; of two protocols each under its name"""


def gather(
    layout: Layout,
    jobs: Sequence[Job],
    split: Split,
    ks: Sequence[int],
    protocol: Protocol,
    reference: str,
    control: str | None = None,
) -> Findings:
    """Return the tables of finished runs, under each of the protocol's variants.

    Args:
        layout: of the dataset; it has the runs' records and rankings.
        jobs: the runs, in the tables' order.
        split: train, and the targets of test.
        ks: cutoffs.
        protocol: by which all runs were selected.
        reference: feature set of the AlignRec that the other runs are compared with.
        control: feature set that every other one is compared with under each model, if any.
    """
    k = headline(ks)
    judged = [_under(layout, jobs, split, ks, judging) for judging in protocol.variants]
    labels = [{"dataset": layout.dataset} | judging.label for judging in protocol.variants]
    summaries = [label | summary(u.records, k) for label, u in zip(labels, judged, strict=True)]
    return Findings(
        results(layout.dataset, [record for u in judged for record in u.records]),
        pa.Table.from_pylist([row for u in judged for row in u.slices], schemas.SLICES),
        significance.tests(
            [(label, u.per_user) for label, u in zip(labels, judged, strict=True)], reference, k, control
        ),
        summaries[0] if len(summaries) == 1 else {"dataset": layout.dataset} | {s["protocol"]: s for s in summaries},
    )


class _Judged(NamedTuple):
    """Finished runs under one protocol."""

    records: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    per_user: dict[Job, dict[str, np.ndarray]]


def _under(layout: Layout, jobs: Sequence[Job], split: Split, ks: Sequence[int], protocol: Protocol) -> _Judged:
    judged = _Judged([], [], {})
    for job in jobs:  # a run's rankings at a time
        record = io.read_json(layout.trial(*job, suffix=protocol.suffix))
        per_run = evaluation(layout, job, protocol, split, ks)
        judged.records.append(record)
        judged.slices.extend(slices.rows(named(layout.dataset, record), per_run, split, ks))
        judged.per_user[job] = {metric: per_run.per_user[metric, headline(ks)] for metric in significance.METRICS}
    return judged


def evaluation(layout: Layout, job: Job, protocol: Protocol, split: Split, ks: Sequence[int]) -> Evaluation:
    """Return a finished run's test figures by user under a protocol, from its rankings."""
    rankings = io.read_table(layout.trial_rankings(*job, suffix=protocol.suffix), schemas.rankings(max(ks)))
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
