"""Schemas of interactions, identifiers, item metadata, images and unreadable lines."""

import pyarrow as pa

from alignrec.schemas.contract import ASIN, ITEM_ID, USER, USER_ID, field, provenance_of, schema
from alignrec.schemas.feature_sets import features

TRAIN, VALID, TEST = 0, 1, 2  # interactions.split, numbered as in MMRec's x_label
COLD_ITEMS, SPARSE = "cold-items", "sparse"  # split protocols that need content

INTERACTIONS = schema(
    USER_ID,
    ITEM_ID,
    field("rating", pa.float32(), "stars, 1 .. 5; null where the source has none", nullable=True),
    field(
        "timestamp",
        pa.int64(),
        "Unix seconds, or see `clock`; null where it has no real time",
        nullable=True,
    ),
    field("split", pa.int8(), "0 train, 1 valid, 2 test", low=0, high=2),
)
USERS = schema(USER_ID, USER)
ITEM_IDS = schema(ITEM_ID, ASIN)

ITEMS = schema(
    ITEM_ID,
    ASIN,
    field("title", pa.string(), "clean; empty where the source has none"),
    field("brand", pa.string(), "clean; empty where the source has none"),
    field("categories", pa.list_(pa.string()), "path from the root, clean"),
    field("description", pa.string(), "clean; empty where the source has none"),
    field("text", pa.string(), "what encoders read: title, brand, categories, description"),
    field(
        "text_status",
        pa.string(),
        "why the text is what it is",
        one_of=("ok", "empty", "no_metadata"),
    ),
    field("image_urls", pa.list_(pa.string()), "candidates, best first"),
    field(
        "tokens",
        pa.int32(),
        "length of text in words between blanks; encoders cut these further",
        low=0,
    ),
    field(
        "extra",
        pa.string(),
        "JSON object of the source's other fields, as they were: price, related, ...",
    ),
)

TEXT_FIELDS = ("title", "brand", "categories", "description")
REJECTS = schema(
    field("file", pa.string(), "name of the raw file"),
    field("line", pa.int64(), "line number from 1", low=1),
    field("reason", pa.string(), "why the line was not used"),
    field("raw", pa.binary(), "the line's bytes, as read; of a long line the first 65,536"),
)
IMAGE_STATUSES = (
    "ok",  # decoded, resized, stored
    "missing",  # the metadata names no image
    "http_error",  # `reason` has the HTTP status
    "unreachable",  # host name not resolved, or connection refused or lost
    "timeout",
    "not_an_image",
    "truncated",
    "too_small",
    "too_large",
    "placeholder",  # a "no image available" file or a 1x1 pixel
    "blocked",  # address or scheme not allowed by the parameters
)
IMAGES = schema(
    ITEM_ID,
    ASIN,
    field("status", pa.string(), "how fetching ended", one_of=IMAGE_STATUSES),
    field("reason", pa.string(), "detail for a status that is not ok; empty for ok"),
    field("url", pa.string(), "the address that gave this result; empty for missing"),
    field("image", pa.binary(), "JPEG, RGB; null unless status is ok", nullable=True),
    field("width", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
    field("height", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
    field("sha256", pa.string(), "hex, of the bytes as fetched; empty where none came"),
)
RELEASED_ITEMS = schema(
    *(f for f in ITEMS if f.name not in ("image_urls", "tokens", "extra")),
    field(
        "image_status",
        pa.string(),
        "how fetching ended; null where none was tried",
        nullable=True,
        one_of=IMAGE_STATUSES,
    ),
    field("image_url", pa.string(), "public address of the picture; empty where there is none"),
    field(
        "image_sha256", pa.string(), "hex, of the picture's bytes as fetched; empty where none came"
    ),
    field(
        "input_text_sha256",
        pa.string(),
        "hex, of the text that went into encoders, UTF-8; empty: none did",
    ),
    field(
        "input_image_sha256",
        pa.string(),
        "hex, of the JPEG that went into encoders: the image as `images` stored it; "
        "empty: none did",
    ),
)


def embedded_items(width: int, identifier: str = "asin") -> pa.Schema:
    """Return the schema of `alignrec embed`; the first column is named as in the user's table."""
    _, asin, *flags, vector_ = features(width)
    image = [
        field(
            "image_status", pa.string(), "how reading the image file ended", one_of=IMAGE_STATUSES
        ),
        field("image_reason", pa.string(), "detail for a status that is not ok; empty for ok"),
    ]
    hashes = [RELEASED_ITEMS.field(f"input_{what}_sha256") for what in ("text", "image")]
    return schema(asin.with_name(identifier), *flags, *image, *hashes, vector_)


def read_clock(interactions: pa.Table) -> str:
    """Return what the timestamps of a table INTERACTIONS are: unix, order (positions in a sequence)
    or none.
    """
    if interactions["timestamp"].null_count:
        return "none"
    return str(provenance_of(interactions).get("timestamps", "unix"))
