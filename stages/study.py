"""study: mask modality, long tail, sweeps -> tables, and study.json."""

from pipeline.benchmark.params import Study
from pipeline.models import MODELS
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import FEATURE_SETS, Stage
from stages.benchmark import BENCHMARK
from stages.combine import FEATURES
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from pipeline.benchmark import study, tail  # load torch
    from pipeline.benchmark.experiment import Experiment

    experiment = Experiment(run, run.params[Study].workers, run.layout.cells("benchmark"))
    for tables in (study.mask_tables, tail.tables, study.sweep_tables):
        experiment.write(tables(experiment))
    experiment.end()
    run.rows_in, run.rows_out = len(run.layout.feature_sets()), len(experiment.named)


STUDY = Stage(
    "study",
    does="mask modality, long tail, sweeps",
    writes="`mask.parquet`, `tail.parquet`, `sweeps.parquet`; [the tables](study.md)",
    reads=(INTERACTIONS, *FEATURES, GRAPH, BENCHMARK),
    sections=("train", "graph", "benchmark", "interactions", *FEATURE_SETS),
    params=Study,
    main=main,
    resumes=True,
    loads=(SOURCES, MODELS),
)
