"""items: metadata of the surviving items -> clean text and image addresses, a row for every item."""

from __future__ import annotations

import schemas
from pipeline.io import raw_files
from pipeline.items import build
from pipeline.run import Run
from pipeline.sources.registry import reader


def main(run: Run) -> None:
    """Write items.parquet and rejects.parquet."""
    layout, source_reader = run.layout, reader(run.source)
    asins = run.read(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = source_reader.metadata(raw_files(layout.sources))
    lines = run.progress(source_reader.lines(path), unit="line") if path else []
    built = build.build(
        lines,
        run.source,
        asins,
        file=path.name if path else "",
        max_reject_share=run.params.items.max_reject_share,
        fields=run.params.items.text,
    )
    run.write(built.items, layout.items, schemas.ITEMS)
    run.write(built.rejects, layout.rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = built.lines, len(built.items)
    for reason, n in built.drops.items():
        run.count(reason, n)
