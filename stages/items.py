"""items: metadata of the surviving items -> clean text and image addresses, a row for every item."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import schemas
from pipeline import io
from pipeline.items import build
from pipeline.items.params import Items
from pipeline.run import Run
from pipeline.sources.base import downloaded
from pipeline.sources.registry import SOURCES
from pipeline.stage import SOURCE, Stage
from pipeline.vectors.registry import READERS
from stages import dropped_rows
from stages.download import DOWNLOAD
from stages.interactions import INTERACTIONS

MOST_USED = 0.9  # share of the text that is enough, without a warning


def main(run: Run) -> None:
    from pipeline.vectors import matching

    layout, source_reader = run.layout, run.source.reader()
    asins = run.read(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = source_reader.metadata(downloaded(layout.sources))
    lines = run.progress(source_reader.lines(path), unit="line") if path else []
    params = run.params[Items]
    found = build.read(
        lines,
        run.source,
        asins,
        file=path.name if path else "",
        max_reject_share=params.max_reject_share,
        folder=run.folder,
    )
    run.write_all(build.tables(found.products, asins, params.text), layout.items, schemas.ITEMS)
    run.write(found.rejects, layout.rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = found.lines, len(asins)
    for reason, n in found.drops.items():
        run.count(reason, n)
    for status in _column(layout.items, "text_status"):
        run.count(f"text_{status}", status != "ok")
    if theirs := matching.files(layout.sources):  # refused here if they do not fit, before hours of work
        run.note(features=matching.check(theirs, asins))
    placeholders = build.find_shared(layout.items, params.shared_above)
    run.note(shared=placeholders)
    share, left_out = build.share_read(io.read_tables(layout.items, schemas.ITEMS), params.text)
    run.note(text_used=share, text_left_out=left_out)
    if left_out and share < MOST_USED:
        run.warn(_describe_left_out(run, share, left_out))
    if placeholders:
        run.warn(_describe_shared(run, placeholders[0], len(placeholders)))


def _column(path: Path, name: str) -> Iterator[Any]:
    for part in io.read_slices(path, schemas.ITEMS, [name], io.PART):
        yield from part[name].to_pylist()


def _describe_left_out(run: Run, share: float, left_out: dict[str, float]) -> str:
    shares = ", ".join(f"{name} {part:.0%}" for name, part in list(left_out.items())[:5])
    how = f"; sources.{run.dataset}.text joins columns to the text" if run.source.kind == "tabular" else ""
    return f"encoders read {share:.0%} of the characters of items' text; left out: {shares}{how}"


def _describe_shared(run: Run, row: dict[str, Any], n: int) -> str:
    return (
        f"{row['items']:,} of {run.rows_out:,} items have the {row['column']} "
        f"{row['value'][:60]!r}; it may be a placeholder; {run.layout.run_record('items')} lists "
        f"{'it' if n == 1 else f'all {n} such values'}"
    )


ITEMS = Stage(
    "items",
    does="metadata of the surviving items -> clean text and image addresses",
    writes="`items.parquet`, `rejects.parquet` (lines that could not be read, and why); [the rules](ingestion.md)",
    reads=(DOWNLOAD, INTERACTIONS),
    sections=(SOURCE,),
    params=Items,
    main=main,
    light=True,
    loads=(SOURCES, READERS),
    check=dropped_rows.items,
)
