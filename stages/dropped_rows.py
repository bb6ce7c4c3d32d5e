"""Checks after a stage: losing most of its input is an error with the likely cause, or a warning if plausible."""

from collections import Counter
from collections.abc import Iterator

import orjson

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.images.files import NO_FILE
from pipeline.images.params import Images
from pipeline.run import Run
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.base import raw_files
from pipeline.sources.product import is_path

FIELDS = ("title", "brand", "categories", "description", "image_urls")
MOST = 0.5  # share
LOOKED_AT = 1000  # items whose other fields are looked at


def interactions(run: Run) -> None:
    below = run.drops["below_k_core"]
    if below > MOST * run.rows_in:
        run.warn(
            f"{below:,} of {run.rows_in:,} ratings are of users or items with too few; lower interactions.user_core "
            "and item_core if these should count"
        )


def items(run: Run) -> None:
    from pipeline.sources.inspect import KNOWN, plain  # loads DuckDB

    file = run.source.reader().metadata(raw_files(run.layout.sources))
    if file is None:
        return
    n, statuses, there, extras = 0, Counter[str](), set[str](), list[str]()
    for part in io.read_slices(run.layout.items, schemas.ITEMS, [*FIELDS, "text_status", "extra"], io.PART):
        n += len(part)
        statuses.update(part["text_status"].to_pylist())
        there |= {field for field in FIELDS if field not in there and any(part[field].to_pylist())}
        extras += part["extra"].slice(0, LOOKED_AT - len(extras)).to_pylist()
    described = n - statuses["no_metadata"]
    if not run.rows_in:
        raise UserError(f"{file}: no item in it; give another file, or leave the key out of the source")
    if not described:
        raise UserError(
            f"{file}: none of its {run.rows_in:,} lines is of one of the {n:,} items; are reviews and metadata "
            "swapped, or is the identifier in another column?"
        )
    others = [key for key, _ in Counter(key for extra in extras for key in orjson.loads(extra)).most_common()]
    gone = [field for field in FIELDS if field not in there]
    for field, key in {field: key for field in gone for key in others if plain(key) in KNOWN[field]}.items():
        if isinstance(run.source, AmazonSource):
            raise UserError(
                f"{file}: no item has {field}, but lines have '{key}', as another version of the data does; is "
                f"sources.{run.dataset}.kind: {run.source.kind} right?"
            )
        run.warn(f"no item has {field}, but the file has '{key}'; name it under `columns`: {{{field}: {key}}}")
    if statuses["empty"] == described:
        cause = f"its lines have {', '.join(others[:8]) or 'no other field'}; are reviews and metadata swapped?"
        if "image_urls" in gone:
            raise UserError(f"{file}: no item has a text or an image; {cause}")
        run.warn(f"no item has a text; {cause}")
    absent = n - described
    if absent > (0 if run.source.has_split else MOST * n):
        run.warn(
            f"{absent:,} of {n:,} items are not in {file.name}, and have neither text nor image of their own; their "
            "text_status in items.parquet is no_metadata"
        )


def images(run: Run) -> None:
    named, ok = run.rows_in - run.drops["missing"], run.rows_out
    failures = {status: n for status, n in run.drops.items() if status != "missing"}
    if not named and (patterns := run.params[Images].pattern):
        where = run.measured["folder"]
        raise UserError(
            f"images: no item has a file {' or '.join(patterns)} below {where}; correct images.pattern or images.folder"
        )
    if not named or ok >= (1 - MOST) * named:
        return
    _gone(run, named)
    status = max(failures, key=failures.__getitem__)
    reasons = Counter(row["reason"] for row in _rows(run, "status", "reason") if row["status"] == status)
    text = f"{named - ok:,} of {named:,} images could not be had, {failures[status]:,} of them {status}, such as "
    text += repr(reasons.most_common(1)[0][0])
    if not ok and status == "blocked":
        raise UserError(f"images: {text}; see `images` in the parameters: such as folder, outside and private_hosts")
    run.warn(f"{text}; `alignrec images {run.dataset} --retry-failed` tries again")


def _gone(run: Run, named: int) -> None:
    def local() -> Iterator[dict[str, str]]:
        return (row for row in _rows(run, "url", "status", "reason") if row["url"] and is_path(row["url"]))

    ends = Counter((row["status"], row["reason"]) for row in local())
    if ends.total() > MOST * named and {*ends} == {NO_FILE[1:]}:
        raise UserError(
            f"images: not one of the {ends.total():,} files that items name is there, such as "
            f"{next(local())['url']!r} below {run.measured['folder']}; say in images.folder where paths start, by "
            "default at the item file's folder"
        )


def _rows(run: Run, *columns: str) -> Iterator[dict[str, str]]:
    for path in io.shards(run.layout.images, "images"):
        yield from io.read_table(path, schemas.IMAGES, list(columns)).to_pylist()
