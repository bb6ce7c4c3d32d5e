"""Stage report: HTML and Markdown reports of all results."""

from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import FEATURE_SETS, Stage
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.report.params import Report
from alignrec.stages.study import EVIDENCE


def main(run: Run) -> None:
    from alignrec.pipeline.report.write import write_report  # loads Pillow

    write_report(run, REPORT.before())


REPORT = Stage(
    "report",
    does="one self-contained page with a verdict, images, pictures and tables",
    writes="`index.html` (one self-contained page), `report.md`",
    reads=EVIDENCE,
    sections=("train.features", *FEATURE_SETS),
    params=Report,
    main=main,
    light=True,
    loads=(PROBES,),
)
