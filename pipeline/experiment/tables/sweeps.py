"""Table SWEEPS: valid Recall@20 of every setting and seed, and the curves and heat maps that are drawn of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.evidence import cell
from pipeline.experiment.plans.sweeps import Swept
from pipeline.experiment.run import Experiment
from pipeline.experiment.search import Tried
from pipeline.experiment.store import Record
from pipeline.experiment.tables import effects
from pipeline.models import RELEASED
from pipeline.study.summaries import RECALL
from pipeline.train.params import Released


def table(experiment: Experiment, found: Mapping[Swept, Record]) -> dict[str, Any]:
    """Return the table, and what `dvc plots` draws; Recall@20 of a loss that diverged is null, with the reason."""
    label = {"dataset": experiment.dataset, "features": experiment.params[Released].features, **experiment.rules.label}
    rows = [
        {**label, **one._asdict(), RECALL: record.best.get(f"valid_{RECALL}"),
         "best_epoch": record.values["best_epoch"] or 0, "reason": record.values["reason"]}
        for one, record in found.items()
    ]  # fmt: skip
    swept = pa.Table.from_pylist(rows, schemas.SWEEPS)
    return {"sweeps.parquet": swept, "curves.json": curves(swept), "heatmaps.json": heatmaps(swept)}


def curves(table: pa.Table) -> list[dict[str, Any]]:
    """Return the points of the sweeps of one key: sweep, key, value, mean and sd of valid Recall@20, and seeds."""
    rows = []
    for (sweep, setting), values in _by_setting(table).items():
        if len(changed := json.loads(setting)) == 1 and values:
            ((key, value),) = changed.items()
            figure = cell(values)
            rows.append({"sweep": sweep, "key": key, "value": value, RECALL: figure.mean, "sd": figure.sd})
            rows[-1]["seeds"] = len(values)
    return sorted(rows, key=lambda row: (row["sweep"], row["value"]))


def heatmaps(table: pa.Table) -> list[dict[str, Any]]:
    """Return the best mean over seeds at each pair of values of two keys, as `alignrec sweep` gives it to `dvc plots`.

    Of more than two keys every pair has a map.
    """
    by_sweep: dict[str, list[Tried]] = {}
    for number, ((sweep, setting), values) in enumerate(_by_setting(table).items()):
        mean = cell(values).mean if values else None
        state = "complete" if values else "failed"
        by_sweep.setdefault(sweep, []).append(Tried(number, json.loads(setting), state, [], 0, mean))
    maps = {}
    for sweep, tried in by_sweep.items():
        space = {key: list(dict.fromkeys(one.setting[key] for one in tried)) for key in tried[0].setting}
        maps["study", RELEASED, sweep] = effects.effects(tried, space)
    return effects.heatmaps(maps)


def _by_setting(table: pa.Table) -> dict[tuple[str, str], list[float]]:
    """Return sweep and setting -> valid Recall@20 of the runs that ended, in the table's order."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in table.select(["sweep", "setting", RECALL]).to_pylist():  # a few thousand rows at most
        runs = values.setdefault((row["sweep"], row["setting"]), [])
        runs += [row[RECALL]] if row[RECALL] is not None else []
    return values
