"""Stage benchmark: models x feature sets x seeds, with slices and paired tests."""

from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.checks.catalogue import check_catalogue
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.combine import FEATURES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.benchmark import plan, results  # load torch
    from alignrec.pipeline.benchmark.experiment import Experiment

    own = run.params[Benchmark]
    experiment = Experiment(run, own.workers, draws=run.layout.draws())
    check_catalogue(run.params, experiment.split.n_items)
    wanted = plan.list_entries(run.params, len(experiment.draws))
    tuned = plan.tune_models(experiment, wanted)
    found = experiment.complete(plan.plan_cells(experiment, wanted, tuned))
    experiment.write(results.benchmark_tables(experiment, found, tuned))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


BENCHMARK = Stage(
    "benchmark", does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, *FEATURES, GRAPH), sections=("train", "search", "interactions", *FEATURE_SETS),
    params=Benchmark, main=main, resumes=True, loads=(SOURCES, MODELS),
)  # fmt: skip
