"""Wrong content: recommenders with other items' images or texts, or noise, against themselves; table WRONG. N users."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

import schemas
from pipeline.benchmark.settings import model_settings
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import bounded
from pipeline.evaluation.evidence import cell, collect
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Spoilt, Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.graph.params import Graph
from pipeline.models import MODELS
from pipeline.seeds import seed_for
from pipeline.study.params import Study
from pipeline.study.summaries import WHOLE

Key = TypeVar("Key", bound=tuple[Any, ...])
TESTED = ("n", "difference", "low", "high", "p", "p_holm")


class Contended(NamedTuple):
    """One training."""

    model: str
    features: str
    what: str  # image, text or noise; WHOLE for the unchanged set
    ratio: float  # share of the items with wrong content; 0 with WHOLE
    seed: int  # number of the run; equal numbers start from equal weights and draw equal negatives


def plan(experiment: Experiment) -> dict[Contended, Cell]:
    wrong = experiment.params[Study].wrong
    _check(experiment)
    spoilings = [(WHOLE, 0.0), *((what, ratio) for what in wrong.what for ratio in sorted(wrong.ratios))]
    return {
        one: plan_cell(experiment, one)
        for model in wrong.models
        for features in wrong.features
        for what, ratio in spoilings
        for seed in range(wrong.seeds)
        for one in (Contended(model, features, what, ratio, seed),)
    }


def plan_cell(experiment: Experiment, one: Contended) -> Cell:
    data = Stored.of(experiment.params, experiment.layout, one.features)
    settings = model_settings(experiment.params, one.model)
    whole = benchmark.cell(experiment, data, one.model, settings, one.seed)
    if one.what == WHOLE:
        return whole
    content = Spoilt(one.what, one.ratio, seed_for("mask", experiment.dataset))
    data = replace(data, graph=experiment.params[Graph], hidden=content)
    return replace(whole, data=data, ks=(bounded(experiment.split.n_items),))


def _check(experiment: Experiment) -> None:
    for model in experiment.params[Study].wrong.models:
        if "features" not in MODELS[model].needs:
            raise UserError(f"'study.wrong.models': {model} reads no features, so none can be wrong; leave it out")


def table(experiment: Experiment, found: Mapping[Contended, Record]) -> dict[str, pa.Table]:
    rows = [row for protocol in experiment.rules.variants for row in _under(experiment, protocol, found)]
    return {"wrong.parquet": pa.Table.from_pylist(rows, schemas.WRONG)}


def _under(experiment: Experiment, protocol: Protocol, found: Mapping[Contended, Record]) -> list[dict[str, Any]]:
    by_content = collect((one[:4], record) for one, record in found.items())
    base = {key: None if key[2] == WHOLE else (*key[:2], WHOLE, 0.0) for key in by_content}
    tested = against(experiment, protocol, by_content, base, seed_for("wrong", experiment.dataset))
    return [dict(zip(("model", "features", "what", "ratio"), key, strict=True)) | row for key, row in tested.items()]


def against(
    experiment: Experiment, protocol: Protocol, runs: Mapping[Key, list[Record]], base: Mapping[Key, Key | None],
    seed: int,
) -> dict[Key, dict[str, Any]]:  # fmt: skip
    """Return each group's recall at K over its runs, and its paired test, of users, against the group `base` names."""
    k = bounded(experiment.split.n_items)
    means: dict[Key, list[float]] = {}
    users: dict[Key, np.ndarray] = {}  # float64 [N], mean over runs
    for key, records in runs.items():  # a run's rankings at a time
        judged = [record.evaluation(protocol.suffix, experiment.split, [k]) for record in records]
        means[key] = [run.mean["recall", k] for run in judged]
        users[key] = np.mean([run.per_user["recall", k] for run in judged], axis=0)
    pairs = {key: ("", "", "", users[key], users[other]) for key, other in base.items() if other is not None}
    tests = dict(zip(pairs, corrected([*pairs.values()], seed), strict=True)) if pairs else {}
    rows = {}
    for key, values in means.items():
        figure, test = cell(values), {name: tests.get(key, {}).get(name) for name in TESTED}
        rows[key] = {
            "dataset": experiment.dataset, **protocol.label, "k": k, "seeds": len(values),
            "mean": figure.mean, "sd": figure.sd, **test, "n": len(users[key]),
        }  # fmt: skip
    return rows
