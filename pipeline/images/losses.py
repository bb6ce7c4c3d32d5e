"""Losing most images is an error with the likely cause, or a warning where it is plausible."""

from collections import Counter
from collections.abc import Iterator

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.images.files import NO_FILE
from pipeline.images.params import Images
from pipeline.run import Run
from pipeline.sources.product import is_path

MOST = 0.5  # share that may fail without a warning


def check_losses(run: Run) -> None:
    named, ok, where = run.rows_in - run.drops["missing"], run.rows_out, run.measured["folder"]
    if not named and (patterns := run.params[Images].pattern):
        raise UserError(
            f"images: no item has a file {' or '.join(patterns)} below {where}; correct images.pattern or images.folder"
        )
    if not named or ok >= (1 - MOST) * named:
        return
    ends = Counter((row["status"], row["reason"]) for row in _rows(run) if is_path(row["url"]))
    if ends.total() > MOST * named and {*ends} == {NO_FILE[1:]}:
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
