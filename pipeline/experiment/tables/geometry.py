"""Table GEOMETRY: the shape of AlignRec's vectors after each epoch, with a loss left out; a row an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

import schemas
from pipeline.experiment.plans.geometry import Without
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.train.params import Released


def table(experiment: Experiment, found: Mapping[Without, Record]) -> dict[str, pa.Table]:
    """Return the table."""
    label = {"dataset": experiment.dataset, "features": experiment.params[Released].features, **experiment.rules.label}
    rows = [
        label | one._asdict() | line | {"best_epoch": record.values["best_epoch"]}
        for one, record in found.items()
        for line in record.values["observed"]
    ]
    return {"geometry.parquet": pa.Table.from_pylist(rows, schemas.GEOMETRY)}
