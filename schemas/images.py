"""An image, or the reason why there is none, for every item."""

from __future__ import annotations

import pyarrow as pa

from schemas.columns import ASIN, ITEM_ID
from schemas.contract import field

IMAGE_STATUSES = (
    "ok",  # decoded, resized, stored
    "missing",  # the metadata names no image
    "http_error",  # an HTTP error; reason has the code
    "unreachable",  # no connection: name not resolved, refused, cut
    "timeout",
    "not_an_image",
    "truncated",
    "too_small",
    "too_large",
    "placeholder",  # a "no image available" file or a 1x1 pixel
    "blocked",  # address or scheme that the parameters do not allow
)

IMAGES = pa.schema(
    [
        ITEM_ID,
        ASIN,
        field("status", pa.string(), "how fetching ended", one_of=IMAGE_STATUSES),
        field("reason", pa.string(), "detail for a status that is not ok; empty for ok"),
        field("url", pa.string(), "the address that gave this result; empty for missing"),
        field("image", pa.binary(), "JPEG, RGB; null unless status is ok", nullable=True),
        field("width", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
        field("height", pa.int32(), "pixels after resizing; 0 unless ok", low=0),
        field("sha256", pa.string(), "hex, of the bytes as fetched; empty where none came"),
        field("phash", pa.uint64(), "64-bit perceptual hash; null unless ok", nullable=True),
    ]
)
