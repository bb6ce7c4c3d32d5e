"""items: metadata of the surviving items -> clean text and image addresses, a row for every item."""

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import SOURCE, Stage
from alignrec.pipeline.items import build
from alignrec.pipeline.items.params import Items
from alignrec.pipeline.sources.base import downloaded
from alignrec.pipeline.sources.registry import SOURCES
from alignrec.pipeline.vectors.registry import READERS
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.vectors import matching

    params, layout, reader = run.params[Items], run.layout, run.source.reader()
    asins = run.read(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = reader.metadata(downloaded(layout.sources))
    lines = run.progress(reader.lines(path), unit="line") if path else []
    name = path.name if path else ""
    found = build.read(lines, run.source, asins, name, params.max_reject_share, folder=run.folder)
    run.write_all(build.tables(found.products, asins, params.text), layout.items, schemas.ITEMS)
    run.write(found.rejects, layout.rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = found.lines, len(asins)
    for reason, n in found.drops.items():
        run.count(reason, n)
    for part in io.read_slices(layout.items, schemas.ITEMS, ["text_status"], io.PART):
        for status in part["text_status"].to_pylist():
            run.count(f"text_{status}", status != "ok")
    if theirs := matching.files(layout.sources):  # refused here if they do not fit, before hours of work
        run.note(features=matching.check(theirs, asins))
    shared = build.find_shared(layout.items, params.shared_above)
    share, left_out = build.share_read(io.read_tables(layout.items, schemas.ITEMS), params.text)
    run.note(shared=shared, text_used=share, text_left_out=left_out)
    build.warn_of_texts(run, share, left_out, shared)


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
    check=build.check_losses,
)
