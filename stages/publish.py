"""Stage publish: write and verify the release folder."""

import shutil

from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import FEATURE_SETS, Stage
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.combine import FEATURES
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.study import EVIDENCE


def main(run: Run) -> None:
    from alignrec.pipeline.release.build import collect_parts, write_release
    from alignrec.pipeline.release.read import Release

    shutil.rmtree(run.layout.release, ignore_errors=True)
    if not run.params[Publish].features:
        run.warn("nothing is released: all feature sets are others' files; name what may go under publish.features")
        return
    parts = collect_parts(run, PUBLISH.before())
    manifest = write_release(run.layout.release, parts, run.record())
    Release(run.layout.release).verify()
    run.rows_in = run.rows_out = manifest.counts.items
    run.note(files=len(manifest.files), bytes=sum(f.bytes for f in manifest.files), features=list(parts.features))


PUBLISH = Stage(
    "publish",
    does="the release folder, verified before it appears",
    writes="`release/`: features, graph, encoders, embeddings and their FAISS index, card, manifest with sha256",
    reads=(DOWNLOAD, *FEATURES, *EVIDENCE),
    sections=("train.features", *FEATURE_SETS),
    params=Publish,
    main=main,
    loads=(SOURCES, PROBES, ENCODERS),
)
