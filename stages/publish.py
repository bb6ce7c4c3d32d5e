"""Stage publish: write and verify the release folder."""

from alignrec.pipeline import io
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.release.params import Publish, resolve_settings
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.report import EVIDENCE


def main(run: Run) -> None:
    from alignrec.pipeline.release.build import write_release
    from alignrec.pipeline.release.item_table import record_columns
    from alignrec.pipeline.release.read import Release
    from alignrec.pipeline.report.outputs import Outputs

    folder = run.layout.release
    publish = run.params[Publish]
    io.remove(folder)
    if not publish.features:
        run.warn(
            "nothing is released: all feature sets are others' files; name what may go under "
            "publish.features"
        )
        return

    source = run.source
    outputs = Outputs(run.layout, source.kind, run.params[TrainSettings].features, PUBLISH.before())
    settings = resolve_settings(publish, source.licence)
    columns = record_columns(source, run.layout.items)
    manifest = write_release(folder, outputs, settings, run.record(), run.warn, columns)
    Release(folder).verify()

    run.rows_in = run.rows_out = manifest.counts.items
    run.note(files=len(manifest.files), bytes=sum(file.bytes for file in manifest.files))
    run.note(features=manifest.sets_with("features"))
    if publish.licence is None and source.licence.header["license"] == "unknown":
        run.warn(
            "the licence of the data is unknown: set publish.licence, such as cc-by-4.0, before "
            "you pass it on"
        )


PUBLISH = Stage(
    "publish",
    does="the release folder, verified before it appears",
    writes="`release/`: features, graph, encoders, embeddings and their FAISS index, card, "
    "manifest with sha256",
    reads=(DOWNLOAD, *FEATURE_SET_STAGES, *EVIDENCE),
    sections=("train.features", *FEATURE_SETS),
    params=Publish,
    main=main,
    loads=(SOURCES, PROBES, ENCODERS),
)
