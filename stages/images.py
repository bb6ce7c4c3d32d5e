"""Stage images: download, verify and shrink item images."""

from alignrec.pipeline import io
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.items import ITEMS


def main(run: Run, retry_failed: bool = False) -> None:
    from alignrec.pipeline.images import fetcher  # loads Pillow and torch

    paths = fetcher.write_shards(run, retry_failed)
    io.keep_only(run.folder, paths)
    fetcher.count_outcomes(run, paths)


IMAGES = Stage(
    "images",
    does="an image or a reason for every item",
    writes="`images-*.parquet`: a JPEG or a reason for every item; duplicates and likely "
    "placeholders in `run.json`",
    reads=(DOWNLOAD, ITEMS),
    sections=(SOURCE,),
    params=Images,
    main=main,
    resumes=True,
)
