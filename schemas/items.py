"""The metadata of each item, and the lines that could not be read."""

from __future__ import annotations

import json

import pyarrow as pa

from schemas.columns import ASIN, ITEM_ID
from schemas.contract import field

ITEMS = pa.schema(
    [
        ITEM_ID,
        ASIN,
        field("title", pa.string(), "clean; empty where the source has none"),
        field("brand", pa.string(), "clean; empty where the source has none"),
        field("categories", pa.list_(pa.string()), "path from the root, clean"),
        field("description", pa.string(), "clean; empty where the source has none"),
        field("text", pa.string(), "what encoders read: title, brand, categories, description"),
        field("text_status", pa.string(), "why the text is what it is", one_of=("ok", "empty", "no_metadata")),
        field("image_urls", pa.list_(pa.string()), "candidates, best first"),
        field("tokens", pa.int32(), "length of text in words between blanks; encoders cut these further", low=0),
        field("extra", pa.string(), "JSON object of the source's other fields, as they were: price, related, ..."),
    ]
)

TEXT_FIELDS = ("title", "brand", "categories", "description")


def text_fields(items: pa.Table) -> tuple[str, ...]:
    """Return the columns that make the text of a read table ITEMS; all of them where its file does not say."""
    record = json.loads((items.schema.metadata or {}).get(b"alignrec", b"{}"))
    return tuple(record.get("params", {}).get("text", TEXT_FIELDS))


REJECTS = pa.schema(
    [
        field("file", pa.string(), "name of the raw file"),
        field("line", pa.int64(), "line number from 1", low=1),
        field("reason", pa.string(), "why the line was not used"),
        field("raw", pa.binary(), "the line's bytes, as read; of a long line the first 65,536"),
    ]
)
