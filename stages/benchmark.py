"""benchmark: models x feature sets x seeds -> a cell a run; results, slices, paired tests, and the headline means.

With a budget, settings are first tried on valid, the same number for every model and feature set.
"""

from pipeline.benchmark.params import Benchmark
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import FEATURE_SETS, Stage
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    """Train what has no record yet, then write the tables."""
    from pipeline.experiment.plans import benchmark as plans  # load torch
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.tables import benchmark as tables

    experiment = Experiment(run, run.params[Benchmark].workers, draws=run.layout.draws())
    run.params[Benchmark].check(experiment.split.n_items)
    found = experiment.complete(plans.plan(experiment))
    experiment.write(tables.table(experiment, found))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, ENCODE, GRAPH),
    sections=("train", "search", "interactions", *FEATURE_SETS),
    params=Benchmark,
    main=main,
    loads=(SOURCES, MODELS),
)
