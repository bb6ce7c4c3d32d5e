"""Stage items: clean text and image addresses from metadata."""

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import further, items
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.pipeline.sources.base import SOURCES, downloaded_files
from alignrec.pipeline.vectors.base import READERS, check_files, feature_files
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    layout = run.layout
    params = run.params[Items]
    reader = run.source.reader()
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = reader.metadata(downloaded_files(layout.sources))
    lines = run.progress(reader.lines(path), unit="line") if path else []
    name = path.name if path else ""

    metadata = items.read_metadata(
        lines, run.source, asins, name, params.max_reject_share, folder=run.folder
    )
    tables = items.item_tables(metadata.products, asins, params.text)
    run.write_all(tables, layout.items, schemas.ITEMS)
    run.write(metadata.rejects, layout.rejects, schemas.REJECTS)

    files = feature_files(layout.sources)
    if files:  # fail early if feature files do not fit the items
        run.note(features=check_files(files, asins))
    items.describe_items(run, metadata, path)
    if params.all:
        further.write_further(run, asins)


ITEMS = Stage(
    "items",
    does="metadata of the surviving items -> clean text and image addresses",
    writes="`items.parquet`, `rejects.parquet` (lines that could not be read, and why); with "
    "`items.all` also `further.parquet`; [the rules](ingestion.md)",
    reads=(DOWNLOAD, INTERACTIONS),
    sections=(SOURCE,),
    params=Items,
    main=main,
    light=True,
    loads=(SOURCES, READERS),
)
