"""Stage report: HTML and Markdown reports of all results."""

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.report.params import Report
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.stages.benchmark import BENCHMARK
from alignrec.stages.combine import FEATURE_SET_STAGES
from alignrec.stages.graph import GRAPH
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS
from alignrec.stages.pretrain import PRETRAIN
from alignrec.stages.probe import PROBE
from alignrec.stages.semantic_ids import SEMANTIC_IDS
from alignrec.stages.study import STUDY
from alignrec.stages.train import TRAIN

# stages whose results reports and releases include
EVIDENCE = (
    INTERACTIONS,
    ITEMS,
    IMAGES,
    PRETRAIN,
    GRAPH,
    SEMANTIC_IDS,
    TRAIN,
    PROBE,
    BENCHMARK,
    STUDY,
)


def main(run: Run) -> None:
    from alignrec.pipeline.report import figures, page  # load Pillow
    from alignrec.pipeline.report.gallery import pick_neighbours
    from alignrec.pipeline.report.item_map import draw_map
    from alignrec.pipeline.report.outputs import Outputs
    from alignrec.pipeline.report.verdict import advise

    features = run.params[TrainSettings].features
    outputs = Outputs(run.layout, run.source.kind, features, REPORT.before())
    if not outputs.records:
        raise UserError(
            f"nothing of {run.dataset} is there to report, as no stage has run; name it under "
            "`datasets` in params.yaml and run `dvc repro`"
        )

    seed = run.seed("gallery")
    near = pick_neighbours(outputs, run.params[Report].gallery_items, seed)
    view = page.build_view(outputs, near)
    html = page.render_index(outputs, view, draw_map(outputs, run.seed("map") % 2**32)).encode()

    io.write_bytes(run.layout.report / "index.html", html)
    io.write_bytes(run.layout.report / "report.md", page.render_markdown(outputs).encode())
    figures.write_figures(outputs, RELEASED)
    if advice := advise(outputs):
        print(printable(" ".join(advice)), flush=True)

    run.rows_in = len(outputs.items) if outputs.items is not None else 0
    run.rows_out = len(near.items) if near else 0
    run.note(bytes=len(html), pictures=len(view.images) if view else 0)


REPORT = Stage(
    "report",
    does="one self-contained page with a verdict, images, pictures and tables",
    writes="`index.html` (one self-contained page), `report.md`",
    reads=(*FEATURE_SET_STAGES, *EVIDENCE),
    sections=("train.features", *FEATURE_SETS),
    params=Report,
    main=main,
    light=True,
    loads=(PROBES,),
)
