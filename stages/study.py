"""study: mask modality, long tail, variants of pre-training, sweeps -> tables, and study.json."""

from pipeline.encode.registry import ENCODERS
from pipeline.experiment.tables import PLANS, TABLES
from pipeline.features.registry import FEATURES
from pipeline.models import MODELS
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import FEATURE_SETS, Stage
from pipeline.study.params import Study
from stages.benchmark import BENCHMARK
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS


def main(run: Run) -> None:
    from pipeline.experiment.run import Experiment  # loads torch

    experiment = Experiment(run, run.params[Study].workers, run.layout.cells("benchmark"))
    for name in TABLES:
        planned = PLANS[name](experiment) if name in PLANS else {}
        found = experiment.complete(planned, name)
        experiment.write(TABLES[name](experiment, found))
    experiment.end()
    run.rows_in, run.rows_out = len(run.layout.feature_sets()), len(experiment.named)


STUDY = Stage(
    "study",
    does="mask modality, wrong content, losses, joint training, long tail, pre-training varied, sweeps",
    writes="`mask.parquet`, `wrong.parquet`, `geometry.parquet`, `joint.parquet`, `tail.parquet`, "
    "`variants.parquet`, `sweeps.parquet`; "
    "[the tables](study.md)",
    reads=(INTERACTIONS, ITEMS, IMAGES, ENCODE, GRAPH, BENCHMARK),
    sections=("train", "graph", "benchmark", "interactions", "pretrain", *FEATURE_SETS),
    params=Study,
    main=main,
    loads=(SOURCES, MODELS, PROBES, PLANS, TABLES, ENCODERS, FEATURES),
)
