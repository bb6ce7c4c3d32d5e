"""Stage benchmark: models x feature sets x seeds, with slices and paired tests."""

from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.checks import check_catalogue
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.evaluation.benchmark import plan  # loads torch
    from alignrec.pipeline.evaluation.benchmark.experiment import Experiment
    from alignrec.pipeline.evaluation.benchmark.results import benchmark_tables

    experiment = Experiment(run, run.params[Benchmark].workers, draws=run.layout.draws())
    check_catalogue(run.params, experiment.split.n_items)
    labels = plan.list_labels(run.params, len(experiment.draws))
    tuned = plan.tune_models(experiment, labels)
    results = experiment.complete(plan.plan_cells(experiment, labels, tuned))
    experiment.write(benchmark_tables(experiment, results, tuned))
    experiment.end()
    run.rows_in = run.rows_out = len(results)


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, "
    "`metrics.json`",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES, GRAPH),
    sections=("train", "search", "interactions", *FEATURE_SETS),
    params=Benchmark,
    main=main,
    resumes=True,
    loads=(SOURCES, MODELS),
)
