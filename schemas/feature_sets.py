"""Schemas of feature sets, item graphs, semantic IDs, and embeddings of trained recommenders."""

import pyarrow as pa

from alignrec.schemas.contract import ASIN, ITEM_ID, USER, USER_ID, field, schema, vector

MODALITIES = ("image", "text")
# types in which releases store vectors; readers of this package return float32
VECTOR_TYPES = {"float32": pa.float32(), "float16": pa.float16()}


def variant(name: str, modality: str) -> str:
    """Return the name of a feature set with one modality masked."""
    return f"{name}-{modality}-masked"


def modalities_of(name: str) -> tuple[str, ...]:
    """Return the modalities that are not masked in a feature set, by its name."""
    return tuple(modality for modality in MODALITIES if not name.endswith(variant("", modality)))


def features(width: int) -> pa.Schema:
    return schema(
        ITEM_ID,
        ASIN,
        field(
            "has_image",
            pa.bool_(),
            "an image went into the vector; null where unknown (imported)",
            nullable=True,
        ),
        field(
            "has_text",
            pa.bool_(),
            "a text went into the vector; null where unknown (imported)",
            nullable=True,
        ),
        field("vector", vector(width), f"float32[{width}], not normalised; finite"),
    )


def vector_type(stored: pa.Schema) -> str:
    """Return the key of VECTOR_TYPES in which a table stores its column `vector`.

    float32 also for what no release stores, which `check` then rejects.
    """
    kind = stored.field("vector").type if "vector" in stored.names else None
    if kind is None or not pa.types.is_fixed_size_list(kind):
        return "float32"
    return "float16" if kind.value_type == pa.float16() else "float32"


def store_as(schema: pa.Schema, name: str) -> pa.Schema:
    """Return a schema with its column `vector` in a type of VECTOR_TYPES."""
    if name == "float32" or "vector" not in schema.names:
        return schema
    place = schema.get_field_index("vector")
    column = schema.field(place)
    width = column.type.list_size
    element = pa.field("element", VECTOR_TYPES[name], nullable=False)
    doc = column.metadata[b"doc"].replace(b"float32", name.encode())
    stored = column.with_type(pa.list_(element, width)).with_metadata({"doc": doc})
    return schema.set(place, stored)


def item_embeddings(width: int) -> pa.Schema:
    # score = dot product of user and item vector
    return schema(ITEM_ID, ASIN, field("vector", vector(width), f"float32[{width}]; finite"))


def user_embeddings(width: int) -> pa.Schema:
    return schema(USER_ID, USER, field("vector", vector(width), f"float32[{width}]; finite"))


def numbered_user_embeddings(width: int) -> pa.Schema:
    return schema(*(f for f in user_embeddings(width) if f.name != USER.name))


EDGES = schema(
    ITEM_ID,
    field(
        "neighbour_id", pa.int32(), "item_id of the neighbour; the item itself comes first", low=0
    ),
    field("rank", pa.int32(), "0 is the nearest", low=0),
    field(
        "cosine",
        pa.float32(),
        "cosine similarity of the two feature vectors",
        low=-1.001,
        high=1.001,
    ),
)


def semantic_ids(levels: int) -> pa.Schema:
    # nullable elements: Parquet reads a null list back with null elements; `check` rejects them in
    # other lists
    codes = pa.list_(pa.field("element", pa.int32()), levels)
    return schema(
        ITEM_ID,
        ASIN,
        field(
            "codes", codes, f"int32[{levels}], each 0 .. K-1; null without content", nullable=True
        ),
        field(
            "suffix",
            pa.int32(),
            "distinguishes items of equal codes: 0, 1, ... by item_id; "
            "null where the policy adds none",
            nullable=True,
            low=0,
        ),
        field(
            "cosine",
            pa.float32(),
            "of the vector and what its codes reconstruct; null where there is none",
            nullable=True,
            low=-1.001,
            high=1.001,
        ),
        field(
            "status",
            pa.string(),
            "coded, or why the item has no id",
            one_of=("coded", "no_content"),
        ),
    )
