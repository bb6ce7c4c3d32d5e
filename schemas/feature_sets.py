"""Vectors and what is made of them: feature sets, the item graph, and the embeddings of a trained recommender."""

import pyarrow as pa

from schemas.contract import ASIN, ITEM_ID, USER, USER_ID, field, vector

TRIED = pa.schema(
    [
        field("number", pa.int32(), "place in the list of candidates, from 0", low=0),
        field("of", pa.list_(pa.string()), "feature sets that it is made of"),
        field("power", pa.float64(), "of the standard deviation that each direction is divided by", low=0),
        field("image", pa.float64(), "length of the image part, where all else has 1", low=0),
        field("map", pa.string(), "to factors of train interactions", one_of=("none", "alone", "beside")),
        field("warm", pa.float64(), "valid Recall@20 of content neighbours among all items", low=0),
        field("cold", pa.float64(), "valid Recall@20 among only cold items, mean over draws", low=0),
        field("score", pa.float64(), "the root of warm times cold: the highest is released", low=0),
        field("chosen", pa.bool_(), "the one that is released"),
    ]
)  # candidates of a feature set of kind `chosen`, in the order in which they were tried; test is not looked at


def features(width: int) -> pa.Schema:
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


def item_embeddings(width: int) -> pa.Schema:
    """Return the schema of a recommender's item vectors: score = dot product with the user's."""
    return pa.schema([ITEM_ID, ASIN, field("vector", vector(width), f"float32[{width}]; finite")])


def user_embeddings(width: int) -> pa.Schema:
    return pa.schema([USER_ID, USER, field("vector", vector(width), f"float32[{width}]; finite")])


def numbered_user_embeddings(width: int) -> pa.Schema:
    return pa.schema([f for f in user_embeddings(width) if f.name != USER.name])


EDGES = pa.schema(
    [
        ITEM_ID,
        field("neighbour_id", pa.int32(), "item_id of the neighbour; the item itself comes first", low=0),
        field("rank", pa.int32(), "0 is the nearest", low=0),
        field("cosine", pa.float32(), "cosine similarity of the two feature vectors", low=-1.001, high=1.001),
    ]
)
