"""Losing most of the metadata is an error with the likely cause, or a warning where it is plausible."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.base import raw_files

FIELDS = ("title", "brand", "categories", "description", "image_urls")
MOST_ABSENT = 0.5  # share of items without metadata, without a warning
LEAST_READ = 0.9  # share of the text that encoders read, without a warning
LOOKED_AT = 1000  # items whose other fields are looked at


def check_losses(run: Run) -> None:
    file = run.source.reader().metadata(raw_files(run.layout.sources))
    if file is None:
        return
    n, statuses, there, extras = 0, Counter[str](), set[str](), list[str]()
    for part in io.read_slices(run.layout.items, schemas.ITEMS, [*FIELDS, "text_status", "extra"], io.PART):
        n += len(part)
        statuses.update(part["text_status"].to_pylist())
        there |= {field for field in FIELDS if field not in there and any(part[field].to_pylist())}
        extras += part["extra"].slice(0, LOOKED_AT - len(extras)).to_pylist()
    absent = statuses["no_metadata"]
    if not run.rows_in:
        raise UserError(f"{file}: no item in it; give another file, or leave the key out of the source")
    if absent == n:
        raise UserError(
            f"{file}: none of its {run.rows_in:,} lines is of one of the {n:,} items; are reviews and metadata "
            "swapped, or is the identifier in another column?"
        )
    others = [key for key, _ in Counter(key for extra in extras for key in orjson.loads(extra)).most_common()]
    _check_fields(run, file, [field for field in FIELDS if field not in there], others)
    if statuses["empty"] == n - absent:
        cause = f"its lines have {', '.join(others[:8]) or 'no other field'}; are reviews and metadata swapped?"
        if "image_urls" not in there:
            raise UserError(f"{file}: no item has a text or an image; {cause}")
        run.warn(f"no item has a text; {cause}")
    if absent > (0 if run.source.has_split else MOST_ABSENT * n):
        run.warn(
            f"{absent:,} of {n:,} items are not in {file.name}, and have neither text nor image of their own; their "
            "text_status in items.parquet is no_metadata"
        )


def _check_fields(run: Run, file: Path, gone: Sequence[str], others: Sequence[str]) -> None:
    from pipeline.sources.inspect import KNOWN, plain  # loads DuckDB

    for field, key in {field: key for field in gone for key in others if plain(key) in KNOWN[field]}.items():
        if isinstance(run.source, AmazonSource):
            raise UserError(
                f"{file}: no item has {field}, but lines have '{key}', as another version of the data does; is "
                f"sources.{run.dataset}.kind: {run.source.kind} right?"
            )
        run.warn(f"no item has {field}, but the file has '{key}'; name it under `columns`: {{{field}: {key}}}")


def warn_of_texts(run: Run, share: float, left_out: Mapping[str, float], shared: Sequence[Mapping[str, Any]]) -> None:
    """Warn if encoders read little of the text, and of titles and texts that many items share."""
    if left_out and share < LEAST_READ:
        shares = ", ".join(f"{name} {part:.0%}" for name, part in list(left_out.items())[:5])
        how = f"; sources.{run.dataset}.text joins columns to the text" if run.source.kind == "tabular" else ""
        run.warn(f"encoders read {share:.0%} of the characters of items' text; left out: {shares}{how}")
    for row in shared[:1]:
        listed = "it" if len(shared) == 1 else f"all {len(shared)} such values"
        run.warn(
            f"{row['items']:,} of {run.rows_out:,} items have the {row['column']} {row['value'][:60]!r}; it may be a "
            f"placeholder; {run.layout.run_record('items')} lists {listed}"
        )
