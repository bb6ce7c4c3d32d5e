"""report: the evidence of every stage -> index.html, report.md and neighbours.png."""

from __future__ import annotations

from pipeline import io
from pipeline.report import gather, page
from pipeline.report.neighbours import neighbours
from pipeline.report.recommended import users
from pipeline.run import Run


def main(run: Run) -> None:
    """Write the page; a stage that did not run is left out of it."""
    evidence = gather.evidence(run)
    near = neighbours(evidence, run.params.report, run.seed("gallery"))
    view = page.view(evidence, near, users(run.layout, evidence, run.seed("users")), gather.images(run))
    html = page.html(evidence, view)
    io.write_bytes(run.layout.report / "index.html", html.encode())
    io.write_bytes(run.layout.report / "report.md", page.report_md(evidence, view).encode())
    if near and view:
        io.write_bytes(run.layout.report / "neighbours.png", page.poster(near, view))
        run.note(gallery=len(near.items), pictures=len(view.images))
    run.rows_in = len(evidence.items) if evidence.items is not None else 0
    run.rows_out = len(near.items) if near else 0
    run.note(bytes=len(html.encode()))
