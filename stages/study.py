"""Stage study: masked modalities, long tail and sweeps."""

from alignrec.pipeline.evaluation.benchmark.params import Study
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.benchmark import BENCHMARK
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.graph import GRAPH
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    if run.params[Study].is_empty:
        run.resume(run.folder, [])
        run.note(skipped="section study names no table")
        return
    from alignrec.pipeline.evaluation.benchmark import slices, study  # load torch
    from alignrec.pipeline.evaluation.benchmark.experiment import Experiment

    experiment = Experiment(run, run.params[Study].workers, run.layout.cells("benchmark"))
    for tables in (study.mask_tables, slices.tail_tables, study.sweep_tables):
        experiment.write(tables(experiment))
    experiment.end()
    run.rows_in = len(run.layout.feature_sets())
    run.rows_out = len(experiment.planned)


STUDY = Stage(
    "study",
    does="mask modality, long tail, sweeps",
    writes="`mask.parquet`, `tail.parquet`, `sweeps.parquet`; [the tables](study.md)",
    reads=(INTERACTIONS, *FEATURE_SET_STAGES, GRAPH, BENCHMARK),
    sections=("train", "graph", "benchmark", "interactions", *FEATURE_SETS),
    params=Study,
    main=main,
    resumes=True,
    loads=(SOURCES, MODELS),
)
