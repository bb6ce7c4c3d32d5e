"""Feature sets: one vector an item."""

from __future__ import annotations

import pyarrow as pa

from schemas.columns import ASIN, ITEM_ID
from schemas.contract import field, vector


def features(width: int) -> pa.Schema:
    """Return the schema of a feature set of `width` dimensions."""
    return pa.schema(
        [
            ITEM_ID,
            ASIN,
            field(
                "has_image", pa.bool_(), "an image went into the vector; null where unknown (imported)", nullable=True
            ),
            field("has_text", pa.bool_(), "a text went into the vector; null where unknown (imported)", nullable=True),
            field("vector", vector(width), f"float32[{width}], not normalised; finite"),
        ]
    )
