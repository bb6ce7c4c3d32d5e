"""Table MASK: Recall@20 of AlignRec with a modality hidden, a row a training and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.experiment.plans.mask import Masked
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.study import summaries


def table(experiment: Experiment, found: Mapping[Masked, Record]) -> dict[str, Any]:
    """Return the table, its means, and what `dvc plots` draws."""
    name = f"recall@{bounded(experiment.split.n_items)}"
    rows = [
        {"dataset": experiment.dataset, **one._asdict(), "protocol": judged["protocol"],
         "fingerprint": judged["fingerprint"], f"recall@{CUTOFF}": judged["metrics"]["test"][name],
         "best_epoch": record.values["best_epoch"]}
        for one, record in found.items() for judged in record.judged
    ]  # fmt: skip
    mask = pa.Table.from_pylist(rows, schemas.MASK)
    return {
        "mask.parquet": mask,
        "study.json": summaries.metrics(mask),
        "mask.json": summaries.mask_points(mask),
    }
