"""Semantic IDs: an item as a few discrete codes, from coarse to fine."""

import pyarrow as pa

from schemas.contract import ASIN, ITEM_ID, field


def codes(levels: int) -> pa.DataType:
    """Return the type of an item's codes: a fixed-size list of `levels` int32.

    Elements are nullable as Parquet gives a null list back with null elements; `check` refuses them in other lists.
    """
    return pa.list_(pa.field("element", pa.int32()), levels)


def semantic_ids(levels: int) -> pa.Schema:
    return pa.schema(
        [
            ITEM_ID,
            ASIN,
            field("codes", codes(levels), f"int32[{levels}], each 0 .. K-1; null without content", nullable=True),
            field("suffix", pa.int32(),
                "distinguishes items of equal codes: 0, 1, ... by item_id; null where the policy adds none",
                nullable=True, low=0),
            field("cosine", pa.float32(), "of the vector and what its codes reconstruct; null where there is none",
                nullable=True, low=-1.001, high=1.001),
            field("status", pa.string(), "coded, or why the item has no id", one_of=("coded", "no_content")),
        ]
    )  # fmt: skip
