"""benchmark: models x feature sets x seeds -> a cell per run; results, slices, paired tests, headline means."""

from pipeline.benchmark.params import Benchmark
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import FEATURE_SETS, Stage
from stages.combine import FEATURES
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from pipeline.benchmark import plan, results  # load torch
    from pipeline.benchmark.experiment import Experiment

    own = run.params[Benchmark]
    experiment = Experiment(run, own.workers, draws=run.layout.draws())
    own.check(experiment.split.n_items)
    wanted = plan.entries(run.params, len(experiment.draws))
    tuned = plan.tune(experiment, wanted)
    found = experiment.complete(plan.plan_cells(experiment, wanted, tuned))
    experiment.write(results.tables(experiment, found, tuned))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, *FEATURES, GRAPH),
    sections=("train", "search", "interactions", *FEATURE_SETS),
    params=Benchmark,
    main=main,
    resumes=True,
    loads=(SOURCES, MODELS),
)
