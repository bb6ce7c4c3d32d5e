"""What each loss of AlignRec prevents: the geometry of its vectors after each epoch without it; table GEOMETRY."""

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

import schemas
from pipeline.benchmark.settings import released_settings
from pipeline.evaluation.cutoff import bounded
from pipeline.experiment.cell import Cell
from pipeline.experiment.observed import Observed
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.models import RELEASED
from pipeline.seeds import seed_for
from pipeline.study.params import Study
from pipeline.train.params import Released

FULL = "nothing"  # removed from the full AlignRec


class Without(NamedTuple):
    """One training."""

    without: str  # weight of AlignRec that is 0, or FULL
    seed: int  # number of the run, which starts from the weights of the benchmark's


def plan(experiment: Experiment) -> dict[Without, Cell]:
    geometry = experiment.params[Study].geometry
    variants = [FULL, *geometry.without] if geometry.without else []
    return {one: cell(experiment, one) for one in (Without(a, s) for a in variants for s in range(geometry.seeds))}


def cell(experiment: Experiment, one: Without) -> Cell:
    params = experiment.params
    settings = released_settings(params)
    changed = {"patience": settings.epochs} | ({} if one.without == FULL else {one.without: 0.0})
    data = Observed.of(params, experiment.layout, params[Released].features)
    number = seed_for("benchmark", experiment.dataset, RELEASED, one.seed)
    ks = (bounded(experiment.split.n_items),)
    return Cell(data, RELEASED, settings.model_copy(update=changed), experiment.rules, number, ks, "test")


def table(experiment: Experiment, found: Mapping[Without, Record]) -> dict[str, pa.Table]:
    label = {"dataset": experiment.dataset, "features": experiment.params[Released].features, **experiment.rules.label}
    rows = [
        label | one._asdict() | line | {"best_epoch": record.values["best_epoch"]}
        for one, record in found.items()
        for line in record.values["observed"]
    ]
    return {"geometry.parquet": pa.Table.from_pylist(rows, schemas.GEOMETRY)}
