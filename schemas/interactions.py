"""Interactions with their split, and identifiers of users and items."""

import pyarrow as pa

from alignrec.schemas.contract import ASIN, ITEM_ID, USER, USER_ID, field, provenance_of

TRAIN, VALID, TEST = 0, 1, 2  # interactions.split, numbered as in MMRec's x_label
COLD_ITEMS, SPARSE = "cold-items", "sparse"  # split protocols that need content

INTERACTIONS = pa.schema(
    [
        USER_ID,
        ITEM_ID,
        field("rating", pa.float32(), "stars, 1 .. 5; null where the source has none", nullable=True),
        field("timestamp", pa.int64(), "Unix seconds, or see `clock`; null where it has no real time", nullable=True),
        field("split", pa.int8(), "0 train, 1 valid, 2 test", low=0, high=2),
    ]
)

USERS = pa.schema([USER_ID, USER])

ITEM_IDS = pa.schema([ITEM_ID, ASIN])


def read_clock(interactions: pa.Table) -> str:
    """Return what the timestamps of a table INTERACTIONS are: unix, order (positions in a sequence) or none."""
    return (
        "none" if interactions["timestamp"].null_count else str(provenance_of(interactions).get("timestamps", "unix"))
    )


def has_own_split(interactions: pa.Table) -> bool:
    return provenance_of(interactions).get("split") == "imported"


def read_division(interactions: pa.Table) -> str:
    """Return the split protocol of a table INTERACTIONS with its setting if it needs content, else an empty string."""
    return str(provenance_of(interactions).get("division", ""))
