"""items: metadata of the surviving items -> clean text and image addresses, a row for every item."""

from __future__ import annotations

import schemas
from pipeline import items
from pipeline.readers import READERS, raw_files
from pipeline.run import Run


def main(run: Run) -> None:
    """Write items.parquet and rejects.parquet."""
    layout, reader = run.layout, READERS[run.source.kind]
    asins = run.read(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = reader.metadata(raw_files(layout.sources))
    lines = run.progress(reader.lines(path), unit="line") if path else []
    built = items.build(
        lines,
        reader,
        wanted=reader.wanted(asins),
        asins=asins,
        file=path.name if path else "",
        max_reject_share=run.params.items.max_reject_share,
    )
    run.write(built.items, layout.items, schemas.ITEMS)
    run.write(built.rejects, layout.rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = built.lines, len(built.items)
    for reason, n in built.drops.items():
        run.count(reason, n)
