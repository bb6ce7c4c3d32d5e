"""The vectors of a trained recommender."""

from __future__ import annotations

import pyarrow as pa

from schemas.columns import ASIN, ITEM_ID, USER, USER_ID
from schemas.contract import field, vector


def item_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's item vectors: score = dot product with the user's."""
    return pa.schema([ITEM_ID, ASIN, field("vector", vector(width), f"float32[{width}]; finite")])


def user_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's user vectors."""
    return pa.schema([USER_ID, USER, field("vector", vector(width), f"float32[{width}]; finite")])


def numbered_user_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's user vectors in a release that names no user."""
    return pa.schema([f for f in user_embeddings(width) if f.name != USER.name])
