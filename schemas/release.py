"""Tables specific to a release; release.schema.json describes its manifest."""

import pyarrow as pa

from alignrec.schemas.contract import field
from alignrec.schemas.feature_sets import features
from alignrec.schemas.items import IMAGE_STATUSES, ITEMS

RELEASED_ITEMS = pa.schema(
    [f for f in ITEMS if f.name not in ("image_urls", "tokens", "extra")]
    + [
        field("image_status", pa.string(), "how fetching ended; null where none was tried", nullable=True,
            one_of=IMAGE_STATUSES),
        field("image_url", pa.string(), "public address of the picture; empty where there is none"),
        field("image_sha256", pa.string(), "hex, of the picture's bytes as fetched; empty where none came"),
        field("image_phash", pa.uint64(), "64-bit perceptual hash; null unless ok", nullable=True),
        field("input_text_sha256", pa.string(), "hex, of the text that went into encoders, UTF-8; empty: none did"),
        field("input_image_sha256", pa.string(),
            "hex, of the JPEG that went into encoders: the image as `images` stored it; empty: none did"),
    ]
)  # fmt: skip


def embedded(width: int) -> pa.Schema:
    ids, vector_ = list(features(width))[:-1], list(features(width))[-1]
    image = [
        field("image_status", pa.string(), "how reading the image file ended", one_of=IMAGE_STATUSES),
        field("image_reason", pa.string(), "detail for a status that is not ok; empty for ok"),
    ]
    hashes = [RELEASED_ITEMS.field(f"input_{what}_sha256") for what in ("text", "image")]
    return pa.schema([*ids, *image, *hashes, vector_])
