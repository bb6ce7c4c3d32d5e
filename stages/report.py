"""report: the evidence of every stage -> index.html, report.md and neighbours.png."""

from __future__ import annotations

from pipeline import io
from pipeline.report import gather, page
from pipeline.run import Run


def main(run: Run) -> None:
    """Write the page; a stage that did not run is left out of it."""
    evidence = gather.evidence(run)
    view = page.gallery_view(evidence, run.params.report, run.seed("gallery"), gather.images(run))
    html = page.html(evidence, view)
    io.write_bytes(run.layout.report / "index.html", html.encode())
    io.write_bytes(run.layout.report / "report.md", page.report_md(evidence, view).encode())
    if view:
        io.write_bytes(run.layout.report / "neighbours.png", page.poster(view))
        run.note(gallery=len(view.items), pictures=len(view.images))
    run.rows_in = len(evidence.items) if evidence.items is not None else 0
    run.rows_out = len(view.items) if view else 0
    run.note(bytes=len(html.encode()))
