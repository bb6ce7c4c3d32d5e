"""study: mask modality, long tail, arms of pre-training, sweeps, codes in use -> tables, and means in study.json."""

from __future__ import annotations

from typing import Any

import schemas
from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
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
from pipeline.train import inputs
from stages.benchmark import BENCHMARK
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.semantic_ids import SEMANTIC_IDS
from stages.train import TRAIN

JUDGED = (INTERACTIONS, ENCODE, GRAPH, SEMANTIC_IDS, BENCHMARK)
"""what it reads where it trains no encoder"""


def main(run: Run) -> None:
    """Train what has no record yet, and write a table a part."""
    from pipeline.benchmark.settings import protocol_of
    from pipeline.study import arms, generative, masking, summaries, sweeps, tail  # load torch

    layout = run.layout
    rules = protocol_of(run.params, run.dataset, inputs.read(layout, None).split)
    parts = (masking.study, tail.study, arms.study, sweeps.study, generative.study)
    made = [path for study in parts for path in study(run, rules)]
    mask = run.read(layout.study("mask"), schemas.MASK)
    io.write_json(layout.study_metrics, summaries.metrics(mask))
    io.write_json(layout.study_plot("mask"), summaries.mask_points(mask))
    io.keep_only(run.folder, [*made, layout.study_metrics, layout.study_plot("mask")])
    run.rows_in, run.rows_out = len(layout.feature_sets()), len(mask)


def needs(run: Run) -> Needs:
    """Codes count where they are judged by use, and what encoders depend on where it trains some."""
    params = run.params
    pretrains, codes = params[Study].pretrains, params[Study].generative.features
    read = [stage for stage in (STUDY.reads if pretrains else JUDGED) if stage is not SEMANTIC_IDS or codes]
    files = [path for stage in read for path in run.layout.outputs(stage.name)]
    facts: list[Any] = [TRAIN.facts(run), run.source.model_dump(mode="json")]
    facts += [params[kind].model_dump(mode="json") for kind in (Graph, Benchmark, Interactions)]
    parts: list[tuple[Registry[Any], str]] = [
        (SOURCES, run.source.kind),
        (MODELS, RELEASED),
        *((PROBES, name) for name in PROBES),
    ]
    if pretrains:
        more, kinds = _encoders(run)
        files = list(dict.fromkeys([*files, *more.files]))
        facts += more.facts
        parts += kinds
    return STUDY.depends(run, *facts, files=files, parts=parts)


def _encoders(run: Run) -> tuple[Needs, list[tuple[Registry[Any], str]]]:
    """Return what the encoders that are trained depend on, and the kinds that are loaded."""
    from pipeline.features import needs as features
    from pipeline.pretrain import needs as pretraining
    from pipeline.study.settings import pretrained

    params, names = run.params, features.named(run.params)
    each = pretrained(params)
    taught = [name for one in each for name in pretraining.taught_by(one)]
    needed = [pretraining.of(one, run.layout) for one in each]
    facts: list[Any] = [params[kind].model_dump(mode="json") for kind in (Pretrain, Encode)]
    facts += [features.settings(params.encoders, names), features.libraries(params.encoders, names)]
    kinds = sorted(features.kinds(params.encoders, [*names, *taught]), key=lambda one: one[1])
    return Needs([path for one in needed for path in one.files], [*facts, *(one.facts for one in needed)], []), kinds


STUDY = Stage(
    "study",
    does="mask modality, the long tail, arms of pre-training, sweeps of settings, codes in use",
    writes="`mask.parquet`, `tail.parquet`, `arms.parquet`, `sweeps.parquet`, `generative.parquet`; "
    "[the tables](study.md)",
    reads=(INTERACTIONS, ITEMS, IMAGES, ENCODE, GRAPH, SEMANTIC_IDS, BENCHMARK),
    params=Study,
    speed=frozenset({"workers"}),
    main=main,
    needs=needs,
    loads=(SOURCES, MODELS, PROBES, ENCODERS, FEATURES),
)
