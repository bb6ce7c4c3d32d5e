"""The nearest neighbours of each item under one feature set."""

from __future__ import annotations

import pyarrow as pa

from schemas.columns import ITEM_ID
from schemas.contract import field

EDGES = pa.schema(
    [
        ITEM_ID,
        field("neighbour_id", pa.int32(), "item_id of the neighbour; the item itself comes first", low=0),
        field("rank", pa.int32(), "0 is the nearest", low=0),
        field("cosine", pa.float32(), "cosine similarity of the two feature vectors", low=-1.001, high=1.001),
    ]
)
