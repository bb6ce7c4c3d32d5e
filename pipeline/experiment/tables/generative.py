"""Tables GENERATIVE and GENERATIVE_TESTS: codes in use, a row a figure, and paired tests. N test users, K cutoff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

import schemas
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.plans.generative import TRIVIAL, Contender, GenerativeRun, protocol
from pipeline.experiment.run import Experiment
from pipeline.experiment.sequences import SASREC, read
from pipeline.experiment.store import Record
from pipeline.seeds import seed_for
from pipeline.sequential.sequences import Sequences
from pipeline.study.params import Study

MEASURED = ("recall", "ndcg")


def table(experiment: Experiment, found: Mapping[GenerativeRun, Record]) -> dict[str, pa.Table]:
    """Return both tables; empty ones where no feature set is named."""
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    if found:
        sequences = read(experiment.layout)
        rules = protocol(experiment, sequences)
        rows = list(_rows(experiment.dataset, found, rules))
        tests = _tests(experiment, {one: record for one, record in found.items() if one.opens}, sequences, rules)
    return {
        "generative.parquet": pa.Table.from_pylist(rows, schemas.GENERATIVE),
        "generative_tests.parquet": pa.Table.from_pylist(tests, schemas.GENERATIVE_TESTS),
    }


def _rows(dataset: str, found: Mapping[GenerativeRun, Record], rules: Protocol) -> Iterator[dict[str, Any]]:
    """Yield the rows of GENERATIVE: of each run valid and test, of a rate that was not chosen valid alone."""
    ran = [one for one in found if one.opens]
    used = {(one.contender, one.rate) for one in ran}
    for one in [*ran, *(one for one in found if (one.contender, one.rate) not in used)]:
        record = found[one]
        watched = {name: record.best.get(f"valid_{name}") for name in ("recall@20", "ndcg@20")}
        judged = record.judged[0]["metrics"] if one.opens else {"valid": watched}
        for part, means in judged.items():
            for name, value in means.items():
                metric, _, k = name.partition("@")
                yield {
                    "dataset": dataset, **one.contender._asdict(), "rate": one.rate, "seed": one.seed,
                    "best_epoch": record.values["best_epoch"], **rules.label,
                    "split": part, "metric": metric, "k": int(k), "value": value,
                }  # fmt: skip


def _tests(
    experiment: Experiment, ran: Mapping[GenerativeRun, Record], sequences: Sequences, rules: Protocol
) -> list[dict[str, Any]]:
    """Return the rows of GENERATIVE_TESTS: codes of one feature set against each other, and each against SASRec."""
    split, own = sequences.split(), experiment.params[Study].generative
    k = headline(own.ks)
    figures: dict[Contender, dict[str, list[np.ndarray]]] = {}
    for one, record in ran.items():  # a run's rankings at a time
        per_user = record.evaluation(rules.suffix, split, [k]).per_user
        for metric in MEASURED:
            figures.setdefault(one.contender, {}).setdefault(metric, []).append(per_user[metric, k])
    pairs = [
        (a, b)
        for a, b in combinations([one for one in figures if one != TRIVIAL.contender], 2)
        if a.features == b.features or b.model == SASREC
    ]
    compared = [
        (metric, "", "", np.mean(figures[a][metric], axis=0), np.mean(figures[b][metric], axis=0))
        for metric in MEASURED for a, b in pairs
    ]  # fmt: skip
    found = corrected(compared, seed_for("generative", experiment.dataset))
    return [
        {
            "dataset": experiment.dataset, **rules.label, "metric": metric, "k": k, "seeds": own.seeds,
            **{f"{key}_a": value for key, value in a._asdict().items()},
            **{f"{key}_b": value for key, value in b._asdict().items()},
            **{key: value for key, value in test.items() if key not in ("a", "b", "measure")},
        }
        for (metric, (a, b)), test in zip([(m, pair) for m in MEASURED for pair in pairs], found, strict=True)
    ]  # fmt: skip
