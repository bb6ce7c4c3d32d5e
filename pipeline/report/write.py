"""The report of a dataset: index.html, report.md and the figures that documentation quotes."""

from collections.abc import Sequence

from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.report import figures, page
from alignrec.pipeline.report.gallery import pick_neighbours
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.params import Report
from alignrec.pipeline.train.params import Released


def write_report(run: Run, stages: Sequence[str]) -> None:
    """Write the report of `stages`, in order; UserError if none of them has run."""
    outputs = Outputs(run.layout, run.source.kind, run.params[Released].features, stages)
    if not outputs.records:
        raise UserError(
            f"nothing of {run.layout.dataset} is there to report, as no stage has run; name it under `datasets` in "
            "params.yaml and run `dvc repro`"
        )
    seed = run.seed("gallery")
    near = pick_neighbours(outputs, run.params[Report].gallery_items, seed)
    view = page.build_view(outputs, near, seed)
    html = page.page_html(outputs, view).encode()
    io.write_bytes(run.layout.report / "index.html", html)
    io.write_bytes(run.layout.report / "report.md", page.report_md(outputs).encode())
    run.rows_in = len(outputs.items) if outputs.items is not None else 0
    run.rows_out = len(near.items) if near else 0
    run.note(bytes=len(html), pictures=len(view.images) if view else 0)
    figures.write_figures(outputs, RELEASED)
