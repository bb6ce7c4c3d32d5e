"""benchmark: models x feature sets x seeds -> a cell per run; results, slices, paired tests, headline means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import Entry
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import FEATURE_SETS, Stage
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS

if TYPE_CHECKING:
    from pipeline.experiment.plans.tuning import Tuned
    from pipeline.experiment.run import Experiment


def main(run: Run) -> None:
    from pipeline.experiment.plans import benchmark as plans  # load torch
    from pipeline.experiment.plans import tuning
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.tables import benchmark as tables

    own = run.params[Benchmark]
    experiment = Experiment(run, own.workers, draws=run.layout.draws())
    own.check(experiment.split.n_items)
    wanted = plans.entries(run.params, len(experiment.draws))
    if own.splits > 1:
        wanted, tuned = league(experiment, wanted)
    else:
        tuned = tuning.tuned(experiment, wanted)
    found = experiment.complete(plans.plan(experiment, wanted, tuned))
    experiment.write(tables.table(experiment, found, tuned))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


def league(experiment: Experiment, wanted: Sequence[Entry]) -> tuple[list[Entry], Tuned]:
    from pipeline.experiment.plans import league as plans
    from pipeline.experiment.tables import league as tables

    experiment.costs = experiment.run.folder / io.COSTS
    season = plans.season(experiment)
    for reason in season.left_out.values():
        experiment.run.warn(f"left out: {reason}")
    played = plans.play(season)
    experiment.write({"league.parquet": tables.table(season, played), "league.json": tables.derived(season, played)})
    experiment.made += [experiment.costs / f"{key}.json" for key in experiment.named]
    tuned = plans.tuned(season, played)
    return [one for one in wanted if one.ablation or (one.model, one.features) in tuned.tried], tuned


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`; with several "
    "splits `league.parquet`, `league.json`",
    reads=(INTERACTIONS, ENCODE, GRAPH),
    sections=("train", "search", "interactions", *FEATURE_SETS),
    params=Benchmark,
    main=main,
    loads=(SOURCES, MODELS),
)
