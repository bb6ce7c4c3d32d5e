"""images: fetch, verify and shrink the image of every item, or record why there is none."""

from collections import Counter
from collections.abc import Iterator

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import SOURCE, Stage
from alignrec.pipeline.images.files import NO_FILE
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.sources.product import is_path
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.items import ITEMS

MOST_FAILED = 0.5  # share of images that may fail without a warning


def main(run: Run, retry_failed: bool = False) -> None:
    from alignrec.pipeline.images import fetcher, shards  # load Pillow and torch

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


def check_losses(run: Run) -> None:
    named, ok, where = run.rows_in - run.drops["missing"], run.rows_out, run.measured["folder"]
    if not named and (patterns := run.params[Images].pattern):
        raise UserError(
            f"images: no item has a file {' or '.join(patterns)} below {where}; correct images.pattern or images.folder"
        )
    if not named or ok >= (1 - MOST_FAILED) * named:
        return
    ends = Counter((row["status"], row["reason"]) for row in _rows(run) if is_path(row["url"]))
    if ends.total() > MOST_FAILED * named and {*ends} == {NO_FILE[1:]}:
        example = next(row["url"] for row in _rows(run) if is_path(row["url"]))
        raise UserError(
            f"images: not one of the {ends.total():,} files that items name is there, such as {example!r} below "
            f"{where}; say in images.folder where paths start, by default at the item file's folder"
        )
    status, n = max(((s, n) for s, n in run.drops.items() if s != "missing"), key=lambda failure: failure[1])
    reason = Counter(row["reason"] for row in _rows(run) if row["status"] == status).most_common(1)[0][0]
    text = f"{named - ok:,} of {named:,} images could not be had, {n:,} of them {status}, such as {reason!r}"
    if not ok and status == "blocked":
        raise UserError(f"images: {text}; see `images` in the parameters: such as folder, outside and private_hosts")
    run.warn(f"{text}; `alignrec images {run.dataset} --retry-failed` tries again")


def _rows(run: Run) -> Iterator[dict[str, str]]:
    for path in io.shards(run.layout.images, "images"):
        named = io.read_table(path, schemas.IMAGES, ["url", "status", "reason"]).to_pylist()
        yield from (row for row in named if row["url"])


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
