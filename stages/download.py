"""Stage download: raw files of a dataset with checksums."""

from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.pipeline.sources.base import SOURCES, Download


def main(run: Run) -> None:
    from alignrec.pipeline.sources import download

    rows = download.fetch_source(run)
    run.rows_out = len(rows)
    run.note(bytes=sum(row["bytes"] for row in rows))


DOWNLOAD = Stage(
    "download",
    does="raw reviews and metadata, with checksums",
    writes="raw files, `sources.json` (url, bytes, sha256)",
    sections=(SOURCE,),
    params=Download,
    main=main,
    resumes=True,
    loads=(SOURCES,),
)
