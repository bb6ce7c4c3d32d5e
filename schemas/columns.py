"""The columns that identify items and users, the same in every table."""

from __future__ import annotations

import pyarrow as pa

from schemas.contract import field

ITEM_ID = field("item_id", pa.int32(), "dense item number, 0 .. I-1", low=0)
ASIN = field("asin", pa.string(), "the item's identifier at its source")
USER_ID = field("user_id", pa.int32(), "dense user number, 0 .. U-1", low=0)
USER = field("user", pa.string(), "the user's identifier at its source")
