"""publish: features, graph, embeddings and evidence -> the release folder, checked before it appears."""

from __future__ import annotations

from pipeline.release import build, gather, verify
from pipeline.run import Run


def main(run: Run) -> None:
    """Write release/."""
    parts = gather.parts(run)
    with build.replacing(run.layout.release) as folder:
        manifest = build.write(folder, parts, run.record())
        for _ in verify(folder):
            pass
    run.rows_in = run.rows_out = manifest.counts.items
    run.note(files=len(manifest.files), bytes=sum(f.bytes for f in manifest.files), features=list(parts.features))
