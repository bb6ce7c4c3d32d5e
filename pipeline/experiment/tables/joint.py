"""Joint or staged: encoder and recommender trained together or in turn, from the same weights; JOINT, JOINT_EPOCHS."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.benchmark.settings import released_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.protocol import Protocol
from pipeline.experiment.cell import Cell
from pipeline.experiment.joint import PROBED, Joint, hit_rates
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.experiment.tables.wrong import against
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.probe import asking
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch, prepared
from pipeline.study.params import Study

FEATURES = "beit3-raw"  # raw CLS: the article's feature, which gradients reach
STAGED, START, JOINT = "staged", "without pre-training", "joint"


class Taught(NamedTuple):
    """One training."""

    variant: str
    """STAGED: on features of the pre-trained encoder; START: of the encoder before that; JOINT: with the latter"""
    rate: float  # learning rate of the encoder, as a share of AlignRec's; 0 where its features are given
    seed: int  # number of the run, which starts from the weights of the benchmark's


def plan(experiment: Experiment) -> dict[Taught, Cell]:
    joint = experiment.params[Study].joint
    if not joint.rates:
        return {}
    params, start = without_pretraining(experiment.params, experiment.layout)
    experiment.made += prepared(experiment.run, params, start, [FEATURES], [FEATURES])
    variants = [(STAGED, 0.0), (START, 0.0), *((JOINT, rate) for rate in joint.rates)]
    return {
        one: plan_cell(experiment, start, one)
        for one in (Taught(variant, rate, seed) for seed in range(joint.seeds) for variant, rate in variants)
    }


def without_pretraining(params: Parameters, layout: Layout) -> tuple[Parameters, Branch]:
    own = params[Pretrain].model_copy(update={"steps": 0, "distill": 0.0})
    return params.having(own), Branch(layout.root, layout.dataset, "joint/start", own.seed)


def plan_cell(experiment: Experiment, start: Branch, one: Taught) -> Cell:
    params = experiment.params
    settings = released_settings(params)
    settings = settings.model_copy(update={"patience": settings.epochs})
    data = Stored.of(params, experiment.layout if one.variant == STAGED else start, FEATURES)
    if one.variant == JOINT:
        data = Joint(start, rate=one.rate, graph=params[Graph])
    return benchmark.cell(experiment, data, RELEASED, settings, one.seed)


Found = Mapping[Taught, Record]


def table(experiment: Experiment, found: Found) -> dict[str, pa.Table]:
    probed = _probe_lines(experiment, found)
    rows = [row for protocol in experiment.rules.variants for row in _under(experiment, protocol, found, probed)]
    epochs = [
        {"dataset": experiment.dataset, **one._asdict(), **experiment.rules.label, "epoch": epoch, "recall@20": best,
         **probed[one][epoch]}
        for one, record in found.items() for epoch, best in enumerate(record.values["curve"])
    ]  # fmt: skip
    return {
        "joint.parquet": pa.Table.from_pylist(rows, schemas.JOINT),
        "joint_epochs.parquet": pa.Table.from_pylist(epochs, schemas.JOINT_EPOCHS),
    }


def _under(
    experiment: Experiment, protocol: Protocol, found: Found, probed: Mapping[Taught, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    variants: dict[tuple[str, float], dict[Taught, Record]] = {}
    for one, record in found.items():
        variants.setdefault(one[:2], {})[one] = record
    base = {variant: None if variant[0] == STAGED else (STAGED, 0.0) for variant in variants}
    runs = {variant: [*own.values()] for variant, own in variants.items()}
    tested = against(experiment, protocol, runs, base, seed_for("joint", experiment.dataset))
    rows = []
    for (variant, rate), row in tested.items():
        own = variants[variant, rate]
        at_best = [probed[one][record.values["best_epoch"]] for one, record in own.items()]
        hits = {name: float(np.mean([one[name] for one in at_best])) for name in PROBED if name in at_best[0]}
        best_epoch = float(np.mean([record.values["best_epoch"] for record in own.values()]))
        rows.append(row | {"variant": variant, "rate": rate, **hits, "best_epoch": best_epoch})
    return rows


def _probe_lines(experiment: Experiment, found: Found) -> dict[Taught, list[dict[str, float]]]:
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
            given[one.variant] = hit_rates(asking.neighbours(data.layout, PROBED), vectors)
        lines[one] = [given[one.variant]] * len(record.values["curve"])
    return lines
