"""Tables JOINT and JOINT_EPOCHS: encoder and recommender trained together beside one after the other. N users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.evaluation.cutoff import bounded
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.joint import PROBED, answered, questions
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans.joint import FEATURES, JOINT, STAGED, Taught
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.experiment.tables.wrong import TESTED, recall
from pipeline.seeds import seed_for

Found = Mapping[Taught, Record]


def table(experiment: Experiment, found: Found) -> dict[str, pa.Table]:
    """Return the tables; p is corrected for all rows of JOINT under one protocol."""
    probed = _probed(experiment, found)
    if experiment.costs:
        experiment.made += [path for one in found.values() if (path := experiment.costs / f"{one.key}.json").is_file()]
    rows = [row for protocol in experiment.rules.variants for row in _under(experiment, protocol, found, probed)]
    epochs = [
        {"dataset": experiment.dataset, **one._asdict(), **experiment.rules.label, "epoch": epoch, "recall@20": best,
         **probed[one][epoch], "seconds": _before(experiment, one) + (1 + epoch) * _seconds(experiment, record)
         / len(record.values["curve"])}
        for one, record in found.items() for epoch, best in enumerate(record.values["curve"])
    ]  # fmt: skip
    return {
        "joint.parquet": pa.Table.from_pylist(rows, schemas.JOINT),
        "joint_epochs.parquet": pa.Table.from_pylist(epochs, schemas.JOINT_EPOCHS),
    }


def _under(
    experiment: Experiment, protocol: Protocol, found: Found, probed: Mapping[Taught, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    k = bounded(experiment.split.n_items)
    variants: dict[tuple[str, float], dict[Taught, Record]] = {}
    for one, record in found.items():
        variants.setdefault(one[:2], {})[one] = record
    recalls = {variant: recall(experiment, protocol, [*runs.values()], k) for variant, runs in variants.items()}
    others = [variant for variant in variants if variant[0] != STAGED]
    pairs = [("", "", "", recalls[variant].users, recalls[STAGED, 0.0].users) for variant in others]
    tests = dict(zip(others, corrected(pairs, seed_for("joint", experiment.dataset)), strict=True)) if pairs else {}
    rows = []
    for (variant, rate), runs in variants.items():
        figure, test = cell(recalls[variant, rate].means), tests.get((variant, rate), {})
        at_best = [probed[one][record.values["best_epoch"]] for one, record in runs.items()]
        first = next(iter(runs))
        rows.append(
            {"dataset": experiment.dataset, "variant": variant, "rate": rate, **protocol.label, "k": k,
             "seeds": len(runs),
             "mean": figure.mean, "sd": figure.sd, **{name: test.get(name) for name in TESTED},
             "n": len(recalls[variant, rate].users),
             **{name: float(np.mean([one[name] for one in at_best])) for name in PROBED if name in at_best[0]},
             "best_epoch": float(np.mean([record.values["best_epoch"] for record in runs.values()])),
             "before": _before(experiment, first),
             "seconds": float(np.mean([_seconds(experiment, record) for record in runs.values()]))}
        )  # fmt: skip
    return rows


def _probed(experiment: Experiment, found: Found) -> dict[Taught, list[dict[str, float]]]:
    """Return what the probes say of the features of each training after each epoch."""
    given: dict[str, dict[str, float]] = {}
    lines = {}
    for one, record in found.items():
        if one.variant == JOINT:
            lines[one] = [{name: line[name] for name in PROBED if name in line} for line in record.values["observed"]]
            continue
        data = experiment.named[record.key].data
        assert isinstance(data, Stored)
        if one.variant not in given:
            vectors = io.matrix(io.read_features(data.layout.features(FEATURES))["vector"])
            given[one.variant] = answered(questions(data), vectors)
        lines[one] = [given[one.variant]] * len(record.values["curve"])
    return lines


def _before(experiment: Experiment, one: Taught) -> float:
    """Return the seconds of pre-training, by the clock."""
    path = experiment.layout.run_record("pretrain")
    return float(io.read_json(path)["seconds"]) if one.variant == STAGED and path.is_file() else 0.0


def _seconds(experiment: Experiment, record: Record) -> float:
    """Return the seconds of CPU that a training took; 0 where another store had it."""
    path = experiment.costs and experiment.costs / f"{record.key}.json"
    return float(io.read_json(path)["seconds"]) if path and path.is_file() else 0.0
