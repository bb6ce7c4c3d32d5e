"""What items have, and what they lack: titles, and the outcome of image and text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.evaluation.evidence import statuses
from pipeline.facts.table import Table
from pipeline.features import reading

REASONS = 20
"""reasons listed, most frequent first"""


def titles(items: pa.Table) -> list[str]:
    """Return the title of each item; its identifier where it has none."""
    return [title or asin for title, asin in zip(*(items[c].to_pylist() for c in ("title", "asin")), strict=True)]


def paths(items: pa.Table) -> list[str]:
    """Return the categories of each item, from the root."""
    return [" › ".join(path) for path in items["categories"].to_pylist()]


def quality(what: str, status: pa.ChunkedArray, reason: pa.ChunkedArray | None, note: str) -> Table:
    """Return how many items ended with which status, and why where a reason is known."""
    columns = [status.to_pylist(), *([] if reason is None else [reason.to_pylist()])]
    counted = list(statuses(pa.chunked_array([["\n".join(words) for words in zip(*columns, strict=True)]])).items())
    rows = [[*words.split("\n", len(columns) - 1), *_share(n, len(status))] for words, n in counted[:REASONS]]
    if rest := sum(n for _, n in counted[REASONS:]):
        rows.append(["others", f"{len(counted) - REASONS} more reasons", *_share(rest, len(status))])
    head = ["status", "reason"][: len(columns)]
    return Table(what, note, [*head, "items", "share"], rows, texts=len(columns))


def gaps(items: pa.Table) -> list[list[str]]:
    """Return how many items of table RELEASED_ITEMS ended with which status of image and text, without `ok`."""
    return [
        [what, status, *_share(n, len(items))]
        for what, column in (("image", "image_status"), ("text", "text_status"))
        for status, n in statuses(items[column].drop_null()).items()
        if status != "ok"
    ]


def incomplete(items: pa.Table) -> dict[str, str]:
    """Return how many items of table RELEASED_ITEMS have no image, no text, neither, whatever the reason."""
    image = pc.fill_null(pc.equal(items["image_status"], "ok"), False)
    text = pc.equal(items["text_status"], "ok")
    lacking: dict[str, str] = {}
    for what, present in {"image": image, "text": text, "either": pc.or_(image, text)}.items():
        count, share = _share(len(items) - (pc.sum(present).as_py() or 0), max(len(items), 1))
        lacking[what] = f"{count} ({share})"
    return lacking


def coverage(features: Mapping[str, list[Path]]) -> list[list[Any]]:
    """Return what each feature set was encoded from: name, width, four shares (empty: unknown).

    Shares of items with image, and with text; of a text's tokens read, mean over items; of items whose texts are cut.
    """
    rows = []
    for name, files in features.items():
        flags = pa.concat_tables(
            [pq.read_table(p, columns=["has_image", "has_text"], partitioning=None) for p in files]
        )
        shares = (pc.mean(flags[column]).as_py() for column in ("has_image", "has_text"))
        read = reading.shares(files) or (None, None)
        rows.append([name, width(files), *("" if share is None else f"{share:.1%}" for share in (*shares, *read))])
    return rows


def width(files: list[Path]) -> int:
    """Return the width of the vectors of a feature set's Parquet files."""
    return int(pq.read_schema(files[0]).field("vector").type.list_size)


def _share(n: int, of: int) -> tuple[str, str]:
    return f"{n:,}", f"{n / of:.1%}"
