"""images: fetch, verify and shrink the image of every item, or record why there is none."""

from collections import Counter

import schemas
from pipeline import io
from pipeline.images.losses import check_losses
from pipeline.images.params import Images
from pipeline.run import Run
from pipeline.stage import SOURCE, Stage
from stages.download import DOWNLOAD
from stages.items import ITEMS


def main(run: Run, retry_failed: bool = False) -> None:
    from pipeline.images import fetcher, shards  # load Pillow and torch

    paths = shards.write_shards(run, retry_failed)
    if run.part:
        return
    io.keep_only(run.folder, paths)
    statuses = Counter[str]()
    for path in paths:
        statuses.update(run.read(path, schemas.IMAGES, ["status"])["status"].to_pylist())
    run.rows_in, run.rows_out = statuses.total(), statuses["ok"]
    for status in schemas.IMAGE_STATUSES[1:]:
        run.count(status, statuses[status])
    run.note(**fetcher.duplicates(run.read(path, schemas.IMAGES, ["url", "sha256", "phash"]) for path in paths))


IMAGES = Stage(
    "images",
    does="an image or a reason for every item",
    writes="`images-*.parquet`: a JPEG or a reason for every item; duplicates and likely placeholders in `run.json`",
    reads=(DOWNLOAD, ITEMS),
    sections=(SOURCE,),
    params=Images,
    main=main,
    resumes=True,
    check=check_losses,
)
