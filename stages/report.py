"""report: the evidence of every stage -> index.html, report.md and neighbours.png."""

from __future__ import annotations

from pipeline import io
from pipeline.facts.neighbours import neighbours
from pipeline.facts.outputs import Outputs
from pipeline.facts.users import users
from pipeline.report import page
from pipeline.run import Run


def main(run: Run) -> None:
    """Write the page; a stage that did not run is left out of it."""
    outputs = Outputs(run.layout, run.source.kind, run.params.trained_on)
    near = neighbours(outputs, run.params.report, run.seed("gallery"))
    view = page.view(outputs, near, users(outputs, run.seed("users")), run.seed("gallery"))
    html = page.html(outputs, view)
    io.write_bytes(run.layout.report / "index.html", html.encode())
    io.write_bytes(run.layout.report / "report.md", page.report_md(outputs, view).encode())
    if near and view:
        io.write_bytes(run.layout.report / "neighbours.png", page.poster(near, view))
        run.note(gallery=len(near.items), pictures=len(view.images))
    run.rows_in = len(outputs.items) if outputs.items is not None else 0
    run.rows_out = len(near.items) if near else 0
    run.note(bytes=len(html.encode()))
