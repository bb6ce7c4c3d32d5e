"""report: the evidence of every stage -> index.html and report.md."""

from pipeline import io
from pipeline.errors import UserError
from pipeline.models import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.report.params import Report
from pipeline.run import Run
from pipeline.stage import FEATURE_SETS, Stage
from pipeline.train.params import Released
from stages.benchmark import BENCHMARK
from stages.graph import GRAPH
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.pretrain import PRETRAIN
from stages.probe import PROBE
from stages.semantic_ids import SEMANTIC_IDS
from stages.study import STUDY
from stages.train import TRAIN


def main(run: Run) -> None:
    from pipeline.report import figures, page  # loads Pillow
    from pipeline.report.gallery import neighbours
    from pipeline.report.outputs import Outputs

    outputs = Outputs(run.layout, run.source.kind, run.params[Released].features, REPORT.before())
    if not outputs.records:
        raise UserError(
            f"nothing of {run.layout.dataset} is there to report, as no stage has run; name it under `datasets` in "
            "params.yaml and run `dvc repro`"
        )
    seed = run.seed("gallery")
    near = neighbours(outputs, run.params[Report].gallery_items, seed)
    view = page.view(outputs, near, seed)
    html = page.html(outputs, view).encode()
    io.write_bytes(run.layout.report / "index.html", html)
    io.write_bytes(run.layout.report / "report.md", page.report_md(outputs).encode())
    run.rows_in = len(outputs.items) if outputs.items is not None else 0
    run.rows_out = len(near.items) if near else 0
    run.note(bytes=len(html), pictures=len(view.images) if view else 0)
    figures.write(outputs, RELEASED)


REPORT = Stage(
    "report",
    does="one self-contained page with a verdict, images, pictures and tables",
    writes="`index.html` (one self-contained page), `report.md`",
    reads=(INTERACTIONS, ITEMS, IMAGES, PRETRAIN, GRAPH, SEMANTIC_IDS, TRAIN, PROBE, BENCHMARK, STUDY),
    sections=("train.features", *FEATURE_SETS),
    params=Report,
    main=main,
    light=True,
    loads=(PROBES,),
)
