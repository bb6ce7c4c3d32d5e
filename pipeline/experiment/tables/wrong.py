"""Table WRONG: recall of recommenders with wrong content, each against itself on the whole set. N users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.evaluation.cutoff import bounded
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.plans.wrong import Contended
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.seeds import seed_for
from pipeline.study.summaries import WHOLE

TESTED = ("n", "difference", "low", "high", "p", "p_holm")


class Users(NamedTuple):
    """Recall of one model and content."""

    means: list[float]
    """by seed"""
    users: np.ndarray
    """float64 [N], mean over seeds"""


def table(experiment: Experiment, found: Mapping[Contended, Record]) -> dict[str, pa.Table]:
    """Return the table; p is corrected for all of its rows under one protocol."""
    rows = [row for protocol in experiment.rules.variants for row in _under(experiment, protocol, found)]
    return {"wrong.parquet": pa.Table.from_pylist(rows, schemas.WRONG)}


def _under(experiment: Experiment, protocol: Protocol, found: Mapping[Contended, Record]) -> list[dict[str, Any]]:
    k = bounded(experiment.split.n_items)
    by_content: dict[tuple[str, str, str, float], list[Record]] = {}
    for one, record in found.items():
        by_content.setdefault(one[:4], []).append(record)
    recalls = {key: recall(experiment, protocol, records, k) for key, records in by_content.items()}
    spoilt = [key for key in recalls if key[2] != WHOLE]
    pairs = [("", "", "", recalls[key].users, recalls[*key[:2], WHOLE, 0.0].users) for key in spoilt]
    tests = dict(zip(spoilt, corrected(pairs, seed_for("wrong", experiment.dataset)), strict=True)) if pairs else {}
    rows = []
    for key, runs in recalls.items():
        figure, test = cell(runs.means), tests.get(key, {})
        named = dict(zip(("model", "features", "what", "ratio"), key, strict=True))
        rows.append(
            {"dataset": experiment.dataset, **named, **protocol.label, "k": k, "seeds": len(runs.means),
             "mean": figure.mean, "sd": figure.sd, **{name: test.get(name) for name in TESTED}, "n": len(runs.users)}
        )  # fmt: skip
    return rows


def recall(experiment: Experiment, protocol: Protocol, records: list[Record], k: int) -> Users:
    """Return recall at k, a run's rankings at a time."""
    runs = [record.evaluation(protocol.suffix, experiment.split, [k]) for record in records]
    return Users([run.mean["recall", k] for run in runs], np.mean([run.per_user["recall", k] for run in runs], axis=0))
