"""What a release has of the trained recommender: embeddings, and an index of those of the items."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.interactions import split
from pipeline.layout import Layout, Piece
from pipeline.train import recommend, retrieval


def pieces(layout: Layout, interactions: pa.Table, users: bool, exact_up_to: int) -> Iterator[Piece]:
    """Yield the vectors of items, those of `users`, and a FAISS index with its facts, such as its recall."""
    if users and layout.user_embeddings.exists():
        yield Piece("embeddings/users.parquet", layout.user_embeddings, "user_embeddings")
    if not layout.item_embeddings.exists():
        return
    yield Piece("embeddings/items.parquet", layout.item_embeddings, "item_embeddings")
    user, item = recommend.vectors(layout)
    index = retrieval.build(item, exact_up_to)
    facts = retrieval.tune(index, item, user, split.load(interactions, len(user), len(item)).train)
    yield Piece("embeddings/items.faiss", retrieval.to_bytes(index))
    yield Piece("embeddings/index.json", facts)
