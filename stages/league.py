"""Every model alike -> table LEAGUE, what follows from it, and a page. Not part of dvc.yaml."""

from collections.abc import Sequence
from pathlib import Path

import schemas
from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.experiment.plans import league as plans
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import league as tables
from pipeline.report import league as page
from pipeline.run import Run


def main(run: Run, budget: int, others: Sequence[Path]) -> None:
    """Train what has no record yet, then write the table, with those of others, and the page; records stay."""
    experiment = Experiment(run, plans.workers(run.params), run.layout.cells("benchmark"))
    experiment.costs = run.folder / io.COSTS
    run.params[Benchmark].check(experiment.split.n_items)
    own = plans.season(experiment, budget)
    for reason in own.left_out.values():
        run.warn(f"left out: {reason}")
    read = [run.read(path, schemas.LEAGUE) for path in others]
    tables.refuse_unlike(own, read)
    played = plans.play(own)
    whole, found = tables.merged([tables.table(own, played), *read]), tables.derived(own, played)
    experiment.write({"league.parquet": whole, "league.json": found})
    io.write_bytes(run.folder / "league.html", page.html(run.dataset, run.source.kind, whole, found).encode())
    run.rows_in = run.rows_out = len(played.found)
