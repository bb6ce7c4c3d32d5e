"""Tables of `alignrec sweep`: every setting, what two do together, and the results of those that won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

import schemas
from pipeline.benchmark.runs import Entry
from pipeline.experiment.plans.search import Asked, Won
from pipeline.experiment.run import Experiment
from pipeline.experiment.search import Tried
from pipeline.experiment.store import Record
from pipeline.experiment.tables import effects
from pipeline.experiment.tables.benchmark import judged, results


def table(
    experiment: Experiment,
    wanted: Asked,
    done: Sequence[Tried],
    won: Mapping[str, Tried],
    found: Mapping[Won, Record],
) -> dict[str, Any]:
    """Return the files of a sweep; what selected a setting is in column selected_by."""
    each = [
        results(
            experiment.dataset,
            [
                judged(Entry(wanted.model, wanted.features, run.seed)._asdict(), record, variant)
                for run, record in found.items()
                if run.number == one.number
                for variant in range(len(record.judged))
            ],
            by,
        )
        for by, one in won.items()
    ]
    return {
        "trials.parquet": trials(done, list(wanted.space)),
        "effects.json": effects.effects(done, wanted.space),
        "results.parquet": pa.concat_tables(each),
    }


def trials(done: Sequence[Tried], names: Sequence[str]) -> pa.Table:
    """Return table trials(names)."""
    rows = [
        {"trial": t.number, "state": t.state, **{name: float(t.setting[name]) for name in names}, "epochs": t.epochs,
         "valid": t.valid, "test": t.test, "reason": t.reason}
        for t in done
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.trials(names))
