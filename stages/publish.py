"""publish: features, graph, embeddings and evidence -> the release folder, checked before it appears."""

import shutil

from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import FEATURE_SETS, Stage
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.benchmark import BENCHMARK
from alignrec.stages.combine import FEATURES
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.graph import GRAPH
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS
from alignrec.stages.pretrain import PRETRAIN
from alignrec.stages.probe import PROBE
from alignrec.stages.semantic_ids import SEMANTIC_IDS
from alignrec.stages.study import STUDY
from alignrec.stages.train import TRAIN


def main(run: Run) -> None:
    from alignrec.pipeline.release import build, gather
    from alignrec.pipeline.release.read import Release

    folder = run.layout.release
    shutil.rmtree(folder, ignore_errors=True)
    if not run.params[Publish].features:
        run.warn("nothing is released: all feature sets are others' files; name what may go under publish.features")
        return
    parts = gather.parts(run, PUBLISH.before())
    folder.mkdir(parents=True)
    manifest = build.write(folder, parts, run.record())
    Release(folder).verified()
    run.rows_in = run.rows_out = manifest.counts.items
    run.note(files=len(manifest.files), bytes=sum(f.bytes for f in manifest.files), features=list(parts.features))


PUBLISH = Stage(
    "publish",
    does="the release folder, verified before it appears",
    writes="`release/`: features, graph, encoders, embeddings and their FAISS index, card, manifest with sha256",
    reads=(
        *(DOWNLOAD, INTERACTIONS, ITEMS, IMAGES, PRETRAIN, *FEATURES, GRAPH),
        *(SEMANTIC_IDS, TRAIN, PROBE, BENCHMARK, STUDY),
    ),
    sections=("train.features", *FEATURE_SETS),
    params=Publish,
    main=main,
    loads=(SOURCES, PROBES, ENCODERS),
)
