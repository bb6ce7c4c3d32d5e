"""Kinds of tables in a release: their files and schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from alignrec import schemas


class TableKind(NamedTuple):
    """A kind of table in a release: its files and schema."""

    path: str  # glob of its files
    description: str
    schema: Callable[[int], pa.Schema]  # called with the vector width or number of codes
    numbered: str = "item"  # id that runs from 0 without gaps: item or user; empty: none


TABLES = {
    "items": TableKind(
        "items.parquet",
        "status of text and image, hashes of what was encoded, and the texts that are released",
        lambda _: schemas.RELEASED_ITEMS,
    ),
    "interactions": TableKind(
        "interactions.parquet",
        "who bought what, with the split",
        lambda _: schemas.INTERACTIONS,
        numbered="",
    ),
    "users": TableKind(
        "users.parquet",
        "identifiers of the users",
        lambda _: schemas.USERS,
        numbered="user",
    ),
    "features": TableKind("features/*/*.parquet", "one vector per item", schemas.features),
    "edges": TableKind(
        "graph/*/edges.parquet",
        "nearest items by cosine, itself first",
        lambda _: schemas.EDGES,
        numbered="",
    ),
    "item_embeddings": TableKind(
        "embeddings/items.parquet",
        "the trained recommender's item vectors",
        schemas.item_embeddings,
    ),
    "user_embeddings": TableKind(
        "embeddings/users.parquet",
        "the trained recommender's user vectors; score = dot product",
        schemas.user_embeddings,
        numbered="user",
    ),
    "numbered_user_embeddings": TableKind(
        "embeddings/users.parquet",
        "the trained recommender's user vectors, by number; score = dot product",
        schemas.numbered_user_embeddings,
        numbered="user",
    ),
    "semantic_ids": TableKind(
        "semantic_ids/*.parquet", "an item as a few discrete codes", schemas.semantic_ids
    ),
}
USER_VECTORS = ("user_embeddings", "numbered_user_embeddings")
# top-level folders with one entry per feature set
PER_SET = {entry.path.split("/")[0] for entry in TABLES.values() if "*" in entry.path}
