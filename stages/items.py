"""Stage items: clean text and image addresses from metadata."""

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import items
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.pipeline.sources.base import SOURCES, downloaded_files
from alignrec.pipeline.vectors.base import READERS, check_files, feature_files
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    layout, reader = run.layout, run.source.reader()
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    path = reader.metadata(downloaded_files(layout.sources))
    lines, name = (run.progress(reader.lines(path), unit="line"), path.name) if path else ([], "")
    found = items.read_metadata(
        lines, run.source, asins, name, run.params[Items].max_reject_share, folder=run.folder
    )
    run.write_all(
        items.item_tables(found.products, asins, run.params[Items].text),
        layout.items,
        schemas.ITEMS,
    )
    run.write(found.rejects, layout.rejects, schemas.REJECTS)
    if files := feature_files(layout.sources):  # fail early if feature files do not fit the items
        run.note(features=check_files(files, asins))
    items.describe_items(run, found, path)


ITEMS = Stage(
    "items", does="metadata of the surviving items -> clean text and image addresses",
    writes="`items.parquet`, `rejects.parquet` (lines that could not be read, and why); [the rules](ingestion.md)",
    reads=(DOWNLOAD, INTERACTIONS), sections=(SOURCE,), params=Items, main=main, light=True, loads=(SOURCES, READERS),
)  # fmt: skip
