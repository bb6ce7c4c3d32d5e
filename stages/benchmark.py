"""benchmark: models x feature sets x seeds -> a cell a run; results, slices, paired tests, and the headline means.

With a budget, settings are first tried on valid, the same number for every model and feature set.
"""

from __future__ import annotations

from pipeline.benchmark import cutoffs
from pipeline.benchmark.params import Benchmark, Sweep
from pipeline.interactions.params import Interactions
from pipeline.models import MODELS, RELEASED
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import Needs, Stage
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS
from stages.train import TRAIN


def main(run: Run) -> None:
    """Train what has no record yet, then write the tables."""
    from pipeline.experiment.plans import benchmark as plans  # load torch
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.tables import benchmark as tables

    experiment = Experiment(run, run.params[Benchmark].workers)
    cutoffs.check(run.params[Benchmark], experiment.split.n_items)
    found = experiment.complete(plans.plan(experiment))
    experiment.write(tables.table(experiment, found))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


def needs(run: Run) -> Needs:
    """The ranges that a budget draws from count where there is one."""
    params = run.params
    facts = [TRAIN.facts(run), params[Interactions].model_dump(mode="json"), run.source.model_dump(mode="json")]
    if params[Benchmark].budget:
        facts.append(params[Sweep].model_dump(mode="json", include={"spaces"}))
    models = [(MODELS, name) for name in dict.fromkeys([*params[Benchmark].models, RELEASED])]
    return BENCHMARK.depends(run, *facts, parts=[(SOURCES, run.source.kind), *models])


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, ENCODE, GRAPH),
    params=Benchmark,
    speed=frozenset({"workers"}),
    main=main,
    needs=needs,
    loads=(SOURCES, MODELS),
)
