"""Contents of a release, kinds of tables and other files: the list that manifest, checks, card and Croissant share."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from alignrec import schemas


class Table(NamedTuple):
    """A kind of table."""

    path: str  # glob of its files
    description: str
    # called with the vector width or number of codes; None: written by earlier versions only and not read
    schema: Callable[[int], pa.Schema] | None
    numbered: str = "item"  # id that runs from 0 without gaps: item or user; empty: none


def _always(schema: pa.Schema) -> Callable[[int], pa.Schema]:
    return lambda width: schema


TABLES = {
    "items": Table(
        "items.parquet", "status of text and image, hashes of what was encoded, and the texts that are released",
        _always(schemas.RELEASED_ITEMS),
    ),
    "interactions": Table("interactions.parquet", "who bought what, with the split", _always(schemas.INTERACTIONS), ""),
    "users": Table("users.parquet", "identifiers of the users", _always(schemas.USERS), "user"),
    "features": Table("features/*/*.parquet", "one vector per item", schemas.features),
    "features_half": Table("features-half/*/*.parquet", "the same in float16", None, ""),
    "edges": Table("graph/*/edges.parquet", "nearest items by cosine, itself first", _always(schemas.EDGES), ""),
    "item_embeddings": Table(
        "embeddings/items.parquet", "the trained recommender's item vectors", schemas.item_embeddings
    ),
    "user_embeddings": Table(
        "embeddings/users.parquet", "the trained recommender's user vectors; score = dot product",
        schemas.user_embeddings, "user",
    ),
    "numbered_user_embeddings": Table(
        "embeddings/users.parquet", "the trained recommender's user vectors, by number; score = dot product",
        schemas.numbered_user_embeddings, "user",
    ),
    "semantic_ids": Table("semantic_ids/*.parquet", "an item as a few discrete codes", schemas.semantic_ids),
    "tried": Table("tried/*.parquet", "candidates of a set that valid chose", None, ""),
}  # fmt: skip
OTHERS = {
    "embeddings/items.faiss": "FAISS index of the item vectors, by inner product; row = item_id",
    "embeddings/index.json": "facts of the index, and its recall",
    "results.json": "benchmark figures by seed",
    "probes.json": "feature sets judged before training",
    "study.json": "mask modality, the long tail, variants of pre-training, sweeps: every row",
    "croissant.json": "this release for readers of MLCommons' Croissant",
}
USER_VECTORS = ("user_embeddings", "numbered_user_embeddings")
# top-level folders with one entry per feature set
PER_SET = {entry.path.split("/")[0] for entry in TABLES.values() if "*" in entry.path}


def describe_file(path: str, table: str | None, used_by: list[str]) -> str:
    if used_by:
        return f"encoder of {', '.join(used_by)}"
    return OTHERS.get(path, "") if table is None else TABLES[table].description


def feature_set(path: str) -> str | None:
    """Return the feature set of features/<name>/... or tried/<name>.parquet; None for other paths."""
    top, *below = PurePosixPath(path).parts
    return PurePosixPath(below[0]).stem if below and top in PER_SET else None
