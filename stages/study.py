"""study: mask modality, long tail, variants of pre-training, sweeps, codes in use -> tables, and study.json."""

from typing import Any

from pipeline.benchmark.params import Benchmark
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.experiment.tables import PLANS, TABLES
from pipeline.features import needs as features
from pipeline.features.registry import FEATURES
from pipeline.graph.params import Graph
from pipeline.interactions.params import Interactions
from pipeline.models import MODELS, RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.probe.registry import PROBES
from pipeline.registry import Registry
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import Needs, Stage
from pipeline.study.params import Study
from pipeline.train.params import Released
from stages.benchmark import BENCHMARK
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.semantic_ids import SEMANTIC_IDS

JUDGED = (INTERACTIONS, ENCODE, GRAPH, SEMANTIC_IDS, BENCHMARK)
"""what it reads where it trains no encoder"""


def main(run: Run) -> None:
    """Train what has no record yet, here or in the benchmark, and write the tables."""
    from pipeline.experiment.run import Experiment  # loads torch

    experiment = Experiment(run, run.params[Study].workers, run.layout.cells("benchmark"))
    for name in TABLES:
        planned = PLANS[name](experiment) if name in PLANS else {}
        found = experiment.complete(planned, name)
        experiment.write(TABLES[name](experiment, found))
    experiment.end()
    run.rows_in, run.rows_out = len(run.layout.feature_sets()), len(experiment.named)


def needs(run: Run) -> Needs:
    """Codes count where they are judged by use, and what encoders depend on where it trains some."""
    params = run.params
    pretrains, codes = params[Study].pretrains, params[Study].generative.features
    read = [stage for stage in (STUDY.reads if pretrains else JUDGED) if stage is not SEMANTIC_IDS or codes]
    files = [path for stage in read for path in run.layout.outputs(stage.name)]
    facts: list[Any] = [params[Released].facts(), run.source.model_dump(mode="json")]
    facts += [params[kind].facts() for kind in (Graph, Benchmark, Interactions)]
    parts: list[tuple[Registry[Any], str]] = [
        (SOURCES, run.source.kind),
        (MODELS, RELEASED),
        *((PROBES, name) for name in PROBES),
        *((PLANS, name) for name in PLANS),
        *((TABLES, name) for name in TABLES),
    ]
    if pretrains:
        more, kinds = _encoders(run)
        files = list(dict.fromkeys([*files, *more.files]))
        facts += more.facts
        parts += kinds
    return STUDY.depends(run, *facts, files=files, parts=parts)


def _encoders(run: Run) -> tuple[Needs, list[tuple[Registry[Any], str]]]:
    """Return what the encoders that are trained depend on, and the kinds that are loaded."""
    from pipeline.pretrain import needs as pretraining
    from pipeline.study.settings import pretrained

    params, names = run.params, features.named(run.params)
    each = pretrained(params)
    taught = [name for one in each for name in pretraining.taught_by(one)]
    needed = [pretraining.find(one, run.layout) for one in each]
    facts: list[Any] = [params[kind].facts() for kind in (Pretrain, Encode)]
    facts += [features.settings(params.encoders, names), features.libraries(params.encoders, names)]
    kinds = sorted(features.kinds(params.encoders, [*names, *taught]), key=lambda one: one[1])
    return Needs([path for one in needed for path in one.files], [*facts, *(one.facts for one in needed)], []), kinds


STUDY = Stage(
    "study",
    does="mask modality, wrong content, losses, joint training, long tail, pre-training varied, sweeps, codes in use",
    writes="`mask.parquet`, `wrong.parquet`, `geometry.parquet`, `joint.parquet`, `tail.parquet`, "
    "`variants.parquet`, `sweeps.parquet`, `generative.parquet`; "
    "[the tables](study.md)",
    reads=(INTERACTIONS, ITEMS, IMAGES, ENCODE, GRAPH, SEMANTIC_IDS, BENCHMARK),
    params=Study,
    main=main,
    needs=needs,
    loads=(SOURCES, MODELS, PROBES, PLANS, TABLES, ENCODERS, FEATURES),
)
